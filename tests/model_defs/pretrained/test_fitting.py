"""Weights in another shape than the model's: the arithmetic, and what the report says of it."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F

from model_defs import LoadingReport, ModelError, create_model
from model_defs.pretrained.fitting import fit_channels, prefix_of, resample_positions
from model_defs.pretrained.loading import load_state
from model_defs.pretrained.report import KeyNote

SMALL = {"img_size": 32, "width": 32, "depth": 1, "heads": 2}


def reasons(notes: tuple[KeyNote, ...]) -> dict[str, str]:
    return {note.name: note.reason for note in notes}


def test_grey_filters_are_the_sum_so_that_grey_pictures_get_the_same_answer() -> None:
    torch.manual_seed(0)
    weight, grey = torch.randn(4, 3, 5, 5), torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(
        F.conv2d(grey, fit_channels(weight, 1)), F.conv2d(grey.expand(-1, 3, -1, -1), weight), rtol=1e-4, atol=1e-5
    )


def test_more_channels_repeat_the_filters_and_keep_the_size_of_the_answer() -> None:
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    four = fit_channels(weight, 4)
    torch.testing.assert_close(four.flatten(), torch.tensor([1.0, 2.0, 6.0, 1.0]) * 3 / 4)
    torch.testing.assert_close(fit_channels(weight, 6).sum(), weight.sum())


def test_one_channel_becomes_three_that_answer_grey_alike() -> None:
    weight = torch.tensor([[[[3.0]]]])
    assert fit_channels(weight, 3).flatten().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7])
def test_channels_are_fitted_as_timm_does_it(channels: int) -> None:
    weight = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(fit_channels(weight, channels), timm.models.adapt_input_conv(channels, weight))


@pytest.mark.parametrize("prefix", [1, 2])
def test_positions_are_resampled_as_timm_does_it_without_antialias(prefix: int) -> None:
    from timm.layers import resample_abs_pos_embed

    torch.manual_seed(0)
    positions = torch.randn(1, prefix + 14 * 14, 8)
    ours = resample_positions(positions, 24)
    wanted = resample_abs_pos_embed(positions, (24, 24), num_prefix_tokens=prefix, antialias=False)
    torch.testing.assert_close(ours, wanted)
    assert torch.equal(ours[:, :prefix], positions[:, :prefix])


def test_the_tokens_before_a_grid_are_counted_from_its_size_alone() -> None:
    assert [prefix_of(side * side + prefix) for side in (1, 2, 7, 14, 24) for prefix in (0, 1, 2)] == [0, 1, 2] * 5


def test_another_number_of_classes_leaves_the_head_fresh_and_says_so() -> None:
    torch.manual_seed(0)
    source, model = create_model("vit_micro", num_classes=5, **SMALL), create_model("vit_micro", num_classes=3, **SMALL)
    head = model.head.weight.clone()
    report = load_state(model, source.state_dict(), "five classes")
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    why = "5 classes in the weights, 3 in the model; the head is fresh"
    assert reasons(report.replaced) == {"head.weight": why, "head.bias": why}
    assert report.loaded == len(model.state_dict()) - 2


def test_without_classes_the_head_is_dropped_and_without_a_head_it_is_missing() -> None:
    whole, body = create_model("vit_micro", num_classes=5, **SMALL), create_model("vit_micro", num_classes=0, **SMALL)
    dropped = load_state(body, whole.state_dict(), "x").dropped
    assert reasons(dropped) == dict.fromkeys(("head.weight", "head.bias"), "the model has no head")
    missing = load_state(whole, body.state_dict(), "x").missing
    assert set(reasons(missing)) == {"head.weight", "head.bias"}


def test_a_vit_becomes_a_distilled_deit_whose_new_token_starts_as_the_class_token() -> None:
    torch.manual_seed(0)
    source = create_model("vit_micro", num_classes=4, **SMALL)
    model = create_model("deit_micro_distilled", num_classes=4, **SMALL).eval()
    report = load_state(model, source.state_dict(), "vit")
    assert torch.equal(model.dist_token, source.cls_token)
    assert torch.equal(model.pos_embed[:, 1], source.pos_embed[:, 0])
    assert torch.equal(model.pos_embed[:, 2:], source.pos_embed[:, 1:])
    assert torch.equal(model.head_dist.weight, source.head.weight)
    assert set(reasons(report.adapted)) == {"dist_token", "pos_embed", "head_dist.weight", "head_dist.bias"}
    assert "class token" in reasons(report.adapted)["dist_token"]
    assert report.loaded + len(report.adapted) == len(model.state_dict())


def test_with_other_classes_both_heads_of_a_distilled_deit_are_fresh() -> None:
    source = create_model("vit_micro", num_classes=4, **SMALL)
    model = create_model("deit_micro_distilled", num_classes=7, **SMALL)
    report = load_state(model, source.state_dict(), "vit")
    assert set(reasons(report.replaced)) == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert set(reasons(report.adapted)) == {"dist_token", "pos_embed"}


def test_a_distilled_deit_becomes_a_vit_of_another_image_size() -> None:
    torch.manual_seed(0)
    source = create_model("deit_micro_distilled", num_classes=4, **SMALL)
    model = create_model("vit_micro", num_classes=4, **{**SMALL, "img_size": 48})
    report = load_state(model, source.state_dict(), "deit")
    assert set(reasons(report.dropped)) == {"dist_token", "head_dist.weight", "head_dist.bias"}
    without = torch.cat([source.pos_embed[:, :1], source.pos_embed[:, 2:]], dim=1)
    torch.testing.assert_close(model.pos_embed, resample_positions(without, 6))
    assert "4 x 4 to 6 x 6" in reasons(report.adapted)["pos_embed"]


def test_auxiliary_heads_may_be_missing_or_superfluous_but_not_in_part() -> None:
    import torchvision

    whole = torchvision.models.googlenet(init_weights=False, aux_logits=True, num_classes=3)
    plain = torchvision.models.googlenet(init_weights=False, aux_logits=False, num_classes=3)
    dropped = load_state(plain, whole.state_dict(), "x").dropped
    assert {note.reason for note in dropped} == {"the model has no auxiliary heads"}
    missing = load_state(whole, plain.state_dict(), "x").missing
    assert {note.reason for note in missing} == {"the weights have no auxiliary heads; they are fresh"}
    part = {name: tensor for name, tensor in whole.state_dict().items() if name != "aux1.conv.conv.weight"}
    with pytest.raises(ModelError, match=r"aux1\.conv\.conv\.weight .* of the model is not in the weights"):
        load_state(whole, part, "x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("norm.weight"), r"norm\.weight \(32,\) of the model is not in the weights"),
        (lambda state: state.update(extra=torch.zeros(2)), r"extra \(2,\) of the weights is not in the model"),
        (
            lambda state: state.update({"norm.weight": torch.zeros(31)}),
            r"norm\.weight is \(31,\) in the weights, \(32,\) in the model",
        ),
    ],
)
def test_what_nothing_explains_is_an_error_that_names_it_and_loads_nothing(change: object, words: str) -> None:
    torch.manual_seed(0)
    model = create_model("vit_micro", num_classes=4, **SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = create_model("vit_micro", num_classes=4, **SMALL).state_dict()
    change(state)
    with pytest.raises(ModelError, match=words):
        load_state(model, state, "file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_many_unexplained_tensors_are_counted_not_listed() -> None:
    state = create_model("lenet5").state_dict()
    with pytest.raises(ModelError, match=r"resnet: these are not weights of this model .*; and \d+ more$"):
        load_state(create_model("resnet18"), state, "resnet")


def test_half_precision_weights_load_into_a_float_model() -> None:
    source = create_model("vit_micro", num_classes=4, **SMALL).half()
    model = create_model("vit_micro", num_classes=4, **{**SMALL, "img_size": 48})
    load_state(model, source.state_dict(), "half")
    assert model.pos_embed.dtype == model.norm.weight.dtype == torch.float32
    torch.testing.assert_close(model.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight.float())


def test_on_the_meta_device_only_the_report_is_made() -> None:
    source = create_model("vit_micro", num_classes=4, **SMALL)
    with torch.device("meta"):
        model = create_model("vit_micro", num_classes=3, **{**SMALL, "img_size": 48})
    report = load_state(model, source.state_dict(), "x")
    assert set(reasons(report.adapted)) == {"pos_embed"}
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_report_reads_as_lines_with_one_reason_each() -> None:
    report = LoadingReport(
        "hf:a/b", "timm", 10,
        adapted=(KeyNote("pos_embed", "resampled"),),
        dropped=tuple(KeyNote(f"x{number}", "of no use") for number in range(8)),
    )  # fmt: skip
    assert str(report).splitlines() == [
        "hf:a/b (timm): 10 tensors loaded",
        "  adapted pos_embed: resampled",
        "  dropped x0, x1, x2, x3, x4, x5 and 2 more: of no use",
    ]
