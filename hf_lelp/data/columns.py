"""Names of the columns that the library adds to a dataset."""

EMBEDDING_COLUMN = "teacher_embedding"
LOGITS_COLUMN = "teacher_logits"
PROJECTIONS_COLUMN = "teacher_projections"
# Who made a row's columns. A column is the one place for this that goes along to disk, to the Hub and through every
# operation on a dataset: its description does not.
TEACHER_MARK = "teacher_fingerprint"
PROJECTIONS_MARK = "projections_fingerprint"
