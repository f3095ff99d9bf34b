"""Checks what a run reaches outside its own folder: trackers of runs, and the Hub."""

from pathlib import Path

from hf_lelp.config import LELPConfig, as_list


def check_reporting(args: LELPConfig) -> None:
    """Refuse reports to a tracker that is not installed, before the teacher runs.

    Raises:
        ValueError: naming it.
    """
    from transformers import integrations  # slow to import

    named = {*(as_list(args.report_to) or [])} & {*integrations.INTEGRATION_TO_CALLBACK}
    for name in sorted(named - {*integrations.get_available_reporting_integrations()}):
        try:
            integrations.INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"report_to={name}: {error} Install its package, or leave report_to out (report_to=none)."
            ) from error


def check_pushed_folder(args: LELPConfig) -> None:
    """Refuse to publish a folder that holds the teacher's columns, which are made of rows of the training data.

    Raises:
        ValueError: if `columns_cache_dir` lies in `output_dir`.
    """
    if args.columns_cache_dir is None:
        return
    folder, cache = Path(args.output_dir or ".").resolve(), Path(args.columns_cache_dir).resolve()
    if folder == cache or folder in cache.parents:
        raise ValueError(
            f"columns_cache_dir={args.columns_cache_dir} lies in output_dir={args.output_dir}, which is published with"
            " all that is in it: the teacher's embeddings of your rows would be. Choose a folder elsewhere, and move it"
            " there."
        )
