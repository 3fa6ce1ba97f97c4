"""What a stage's result is called in a few words."""

from pipeline.evaluation.summary import evaluation_headline, evaluation_summary
from pipeline.headline import headline
from pipeline.sharding.mixture.stage import mixture_headline


def test_a_summary_is_called_as_its_stage_says():
    assert headline({"images": 1200, "headline": "as it says"}) == "as it says"


def test_an_older_summary_without_a_headline_shows_its_first_values():
    summary = {"images": 1200, "share": 0.25, "classes": {"a": 1}, "ok": True, "more": 1}
    assert headline(summary) == "images 1,200, share 0.250, ok yes"
    assert headline({"split": "test", "accuracy/top1": 0.5}) == "split test, accuracy/top1 50.0%"
    assert headline({}) == ""


def test_an_accuracy_never_stands_without_its_floors():
    words = evaluation_headline({"accuracy/top1": 0.5, "accuracy/chance": 0.02, "accuracy/majority": 0.061})
    assert words == "top-1 50.0% (chance 2.0%, majority 6.1%)"


def test_an_accuracy_has_the_images_that_it_is_of():
    metrics = {"accuracy/top1": 0.5, "accuracy/samples": 1200.0}
    assert evaluation_summary("test", metrics)["headline"] == "top-1 50.0% on 1,200 test images"
    assert evaluation_summary("all", {**metrics, "accuracy/samples": 1.0})["headline"] == "top-1 50.0% on 1 image"


def test_a_mixture_names_its_data_sets():
    summary = {"data_sets": {"emoji": 1200, "photos": 80}, "labels": 12, "left_out": 3}
    assert mixture_headline(summary) == "1,200 emoji + 80 photos, 12 labels, 3 left out"
