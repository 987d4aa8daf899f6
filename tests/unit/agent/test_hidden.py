"""Credentials are found in a text however they are written there, and ordinary words are left alone."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from mlperf_operator.agent.hidden import Hidden, of_upload

VALUES = {"ID": "AKIAPLANTED", "KEY": "AKIAPLANTED/secret+key=", "TOKEN": "to~ken & more", "SHORT": "a", "NONE": ""}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Credential=AKIAPLANTED/20260102", "Credential=(ID)/20260102"),
        ("AKIAPLANTED/secret+key= AKIAPLANTED", "(KEY) (ID)"),
        (f"?X-Amz-Credential={quote(VALUES['KEY'], safe='')}", "?X-Amz-Credential=(KEY)"),
        (f"?token={quote(VALUES['TOKEN'])}", "?token=(TOKEN)"),
        ("a store said: no such bucket", "a store said: no such bucket"),
        ("", ""),
    ],
)
def test_a_value_is_replaced_by_its_name(text: str, left: str) -> None:
    assert Hidden(VALUES).within(text) == left


def test_of_an_upload_the_keys_are_hidden_and_the_certificates_are_not() -> None:
    hidden = of_upload(
        {"AWS_ACCESS_KEY_ID": " planted-id\n", "AWS_SESSION_TOKEN": "planted-token", "S3_CA_BUNDLE": "BEGIN"}
    )
    assert hidden.within("planted-id planted-token BEGIN") == "(AWS_ACCESS_KEY_ID) (AWS_SESSION_TOKEN) BEGIN"


def test_without_values_a_text_stays() -> None:
    assert Hidden({}).within("AKIAPLANTED") == "AKIAPLANTED"
