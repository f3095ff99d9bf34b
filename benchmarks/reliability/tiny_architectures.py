"""Any classifier of transformers, built tiny from its configuration alone, and random inputs for it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

NUM_LABELS = 3
ROWS = 4
PAD, EOS = 1, 2
MOST_PARAMETERS = 60_000_000

# What a size is called in a configuration, and the value that makes it small. Only names that it has are set.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "shape_vocab_size", "pronunciation_vocab_size", "entity_vocab_size"), 64),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "n_embed"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "pooler_hidden_size", "pooler_output_size", "output_hidden_size"), 32),
    **dict.fromkeys(("true_hidden_size", "intra_bottleneck_size", "input_embedding_size", "d_latents"), 32),
    **dict.fromkeys(("projection_dim", "classifier_proj_size", "entity_emb_size", "shape_embed_dim"), 32),
    **dict.fromkeys(("pronunciation_embed_dim", "prediction_head_size", "mamba_dt_rank", "dim_model_base"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "num_self_attention_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_cross_attention_heads"), 2),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_mamba_heads", "index_n_heads"), 2),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "decoder_num_attention_heads"), 2),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_self_attends_per_block", "num_spatial_layers"), 2),
    **dict.fromkeys(("num_temporal_layers", "pred_num_hidden_layers", "decoder_num_hidden_layers"), 2),
    **dict.fromkeys(("intermediate_size", "d_ff", "dff", "ffn_dim", "n_inner", "d_inner"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "feed_forward_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 64),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "kv_channels", "attention_head_size", "qk_head_dim"), 16),
    **dict.fromkeys(("v_head_dim", "linear_key_head_dim", "linear_value_head_dim", "kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "n_group", "topk_group", "num_latents"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_2d_position_embeddings", "max_seq_len"), 128),
    **dict.fromkeys(("num_conv_pos_embeddings", "num_conv_pos_embedding_groups"), 4),
    **dict.fromkeys(("image_size", "input_size", "crop_size"), 64),
    "max_source_positions": 32,
    "num_frames": 4,
    "frames_per_clip": 4,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": 0,
    "decoder_start_token_id": 0,
    "num_labels": NUM_LABELS,
    "initializer_range": 0.2,
    # No noise in training, so that the loss before and after a step compare.
    "apply_spec_augment": False,
    "router_jitter_noise": 0.0,
    "input_jitter_noise": 0.0,
}
# Lists of sizes by stage: all ones, or growing from 16.
_DEPTHS = ("depths", "num_block_repeats", "stage_num_blocks")
_WIDTHS = ("hidden_sizes",)

# What a class needs beyond that.
_ONE_OF_EACH = {"layer_types": ["linear_attention", "full_attention"]}
SPECIAL: dict[str, dict[str, Any]] = {
    "AXK1ForSequenceClassification": {"head_dim": 8},
    "BitForImageClassification": {"num_groups": 8},
    "CohereCompassTextForSequenceClassification": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "DeepseekV3ForSequenceClassification": {"head_dim": 8},
    "DonutSwinForImageClassification": {"window_size": 2},
    "GPTJForSequenceClassification": {"rotary_dim": 8},
    "GPTNeoForSequenceClassification": {"attention_types": [[["global", "local"], 1]]},
    "HGNetV2ForImageClassification": {"hidden_sizes": [256, 512, 1024, 2048]},
    "JambaForSequenceClassification": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "LayoutLMv3ForSequenceClassification": {"coordinate_size": 6, "shape_size": 4},
    "LiltForSequenceClassification": {"hidden_size": 48},
    "PerceiverForImageClassificationFourier": {"num_cross_attention_heads": 1},
    "PvtForImageClassification": {"hidden_sizes": [16, 32, 80, 128]},
    "PvtV2ForImageClassification": {"hidden_sizes": [16, 32, 80, 128]},
    "Qwen3NextForSequenceClassification": _ONE_OF_EACH,
    "Qwen3_5ForSequenceClassification": {"text_config": _ONE_OF_EACH},
    "Qwen3_5TextForSequenceClassification": _ONE_OF_EACH,
    "ReformerForSequenceClassification": {
        "axial_pos_shape": [3, 4],  # in training every sequence has their product in tokens
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "hash_seed": 0,  # its hashing is random, in evaluation too
    },
    "ShieldGemma2ForImageClassification": {"yes_token_index": 10, "no_token_index": 11},
    "SwinForImageClassification": {"window_size": 2},
    "T5ForSequenceClassification": {"decoder_start_token_id": 0},
    "TextNetForImageClassification": {"hidden_sizes": [64, 64, 128, 256, 512], "image_size": [64, 64]},
    "TimmWrapperForImageClassification": {"architecture": "resnet18"},
    "XmodForSequenceClassification": {"default_language": "en_XX"},
    "Zamba2ForSequenceClassification": {"layers_block_type": ["linear_attention", "hybrid"]},
    "ZambaForSequenceClassification": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],  # which share a layer
    },
}


def tiny_config(config_class: type[PreTrainedConfig], special: dict[str, Any]) -> PreTrainedConfig:
    """The configuration with small sizes, those of its parts too; `special` overrules."""
    default = config_class()
    changes: dict[str, Any] = {}
    for key, value in default.to_dict().items():
        part = getattr(default, key, None)
        if isinstance(part, PreTrainedConfig):
            changes[key] = tiny_config(type(part), special.get(key, {}))
        elif key in _DEPTHS and isinstance(value, Sequence):
            changes[key] = [1] * len(value)
        elif key in _WIDTHS and isinstance(value, Sequence):
            changes[key] = [16 * (stage + 1) for stage in range(len(value))]
        elif "drop" in key and isinstance(value, float):
            changes[key] = 0.0
        elif key in _SMALL and not isinstance(value, list | tuple):
            changes[key] = _SMALL[key]
    changes |= {key: value for key, value in special.items() if not isinstance(changes.get(key), PreTrainedConfig)}
    return config_class(**{"num_labels": NUM_LABELS, "pad_token_id": PAD, "eos_token_id": EOS, **changes})


def tiny_model(model_class: type[PreTrainedModel], num_labels: int = NUM_LABELS) -> PreTrainedModel:
    """The classifier with random weights, its final layer's large enough that a wrong embedding shows.

    Args:
        model_class: of transformers.
        num_labels: outputs of its final layer.

    Raises:
        ValueError: if its configuration is not made small.
    """
    assert model_class.config_class is not None
    config = tiny_config(model_class.config_class, SPECIAL.get(model_class.__name__, {}))
    config.num_labels = num_labels
    with torch.device("meta"):
        size = model_class(config).num_parameters()
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters: give its configuration smaller sizes in SPECIAL.")
    torch.manual_seed(0)
    model = model_class(config)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.2)  # a class token of zeros: layer norm is not continuous there
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == num_labels:
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=module.in_features**-0.5)
    return model


def random_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """A batch of `ROWS` random examples: padded texts, images, sound or clips, as the model's main input asks."""
    generator = torch.Generator().manual_seed(1)
    config = model.config
    name = model.main_input_name

    def noise(*shape: int) -> Tensor:
        return torch.randn(ROWS, *shape, generator=generator)

    if name == "input_ids" or (name == "inputs" and "ForSequenceClassification" in type(model).__name__):
        lengths = torch.tensor([12, 5, 9, 12])
        positions = torch.arange(12)
        ids = torch.randint(4, 60, (ROWS, 12), generator=generator)
        ids[positions == lengths[:, None] - 1] = EOS
        mask = (positions < lengths[:, None]).long()
        return {name: torch.where(mask == 1, ids, PAD), "attention_mask": mask}
    if name == "input_values":
        if getattr(config, "num_mel_bins", None):
            return {name: noise(config.max_length, config.num_mel_bins)}
        return {name: noise(4000)}
    if name == "input_features":
        if getattr(config, "max_source_positions", None) and getattr(config, "num_mel_bins", None):
            return {name: noise(config.num_mel_bins, 2 * config.max_source_positions)}
        return {name: noise(20, config.feature_projection_input_dim)}
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None) or 64
    height, width = (size, size) if isinstance(size, int) else size
    frames = int(getattr(config, "num_frames", 0) or getattr(config, "frames_per_clip", 0))
    channels = getattr(config, "num_channels", 3)
    if "Video" in type(model).__name__:
        return {name: noise(frames, channels, height, width)}
    if "Siglip2" in type(model).__name__:
        vision = config.vision_config
        side = int(vision.num_patches**0.5)
        return {
            name: noise(vision.num_patches, channels * vision.patch_size**2),
            "pixel_attention_mask": torch.ones(ROWS, vision.num_patches, dtype=torch.long),
            "spatial_shapes": torch.full((ROWS, 2), side),
        }
    return {name: noise(channels, height, width)}
