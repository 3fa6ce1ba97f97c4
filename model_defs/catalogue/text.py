"""Text models that can be the text backbone of a dual encoder; CLIP's own is in language_image."""

from __future__ import annotations

from model_defs.model_info import ModelInfo
from model_defs.registry import register_model

_BERT = "Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
_MINILM = "Wang et al., MiniLM: Deep Self-Attention Distillation of Pre-Trained Transformers"

# Without other arguments this is BERT base; it accepts others, e.g. width=32, depth=2, heads=2.
register_model(
    ModelInfo(
        "bert",
        "text",
        2018,
        _BERT,
        parameters=108_890_112,
        macs=48_318_382_080,
        weights="hf google-bert/bert-base-uncased",
    ),
    "model_defs.bert:bert",
)
for _depth, _parameters, _macs in ((6, 22_564_608, 6_643_777_536), (12, 33_211_392, 13_287_555_072)):
    register_model(
        ModelInfo(
            f"bert_minilm_l{_depth}", "text", 2020, _MINILM, parameters=_parameters, macs=_macs,
            weights=f"hf sentence-transformers/all-MiniLM-L{_depth}-v2",
        ),
        "model_defs.bert:bert",
        width=384,
        depth=_depth,
        heads=12,
    )  # fmt: skip
