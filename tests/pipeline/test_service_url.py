"""No user, password or token of a URL is shown, whatever its form."""

from __future__ import annotations

import pytest

from pipeline.service_url import shown_url, split_credentials, without_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:hush@host:4200/api", "http://host:4200/api"),
        ("https://hush@host/api?token=hush#hush", "https://host/api"),
        ("postgresql+psycopg2://me:hu%40sh@db:5432/mlflow?sslpassword=hush", "postgresql+psycopg2://db:5432/mlflow"),
        ("http://me:hu@sh@host/x", "http://host/x"),
        ("http://me:hu/sh@host/x", "http://host/x"),
        ("http://me:p@hu/sh@host/x", "http://host/x"),
        ("http://me:hu?sh@host/x", "http://host/x"),
        ("http://me:hu'sh@host/x", "http://host/x"),
        ("http://me:hu#sh@[::1]:80/x", "http://[::1]:80/x"),
        ("ray://host:10001", "ray://host:10001"),
        ("https://unpkg.com/@scope/pack@1.0", "https://unpkg.com/@scope/pack@1.0"),
        ("http://host:8080/@scope", "http://host:8080/@scope"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("/data/me@home", "/data/me@home"),
        ("host:6379", "host:6379"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert "hush" not in without_credentials(f"in '{url}' and ({url}): {url}")
    assert "sh@" not in without_credentials(url)


def test_the_words_around_a_url_stay() -> None:
    said = "API request to http://me:hush@host/api?page=2 failed, see https://docs.example/x"
    assert without_credentials(said) == "API request to http://***@host/api?page=*** failed, see https://docs.example/x"


def test_credentials_are_split_off_as_they_are_meant() -> None:
    assert split_credentials("http://me:hu%40sh@host/api") == ("http://host/api", "me:hu@sh")
    assert split_credentials("http://host/api") == ("http://host/api", None)
    assert split_credentials("http://me:hush@host/@scope") == ("http://host/@scope", "me:hush")
