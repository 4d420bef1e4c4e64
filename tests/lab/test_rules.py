"""The rules that judge: plain JSON with a hash of every part, and what a reader may reword is not part of it."""

import json

from sigreg.lab.rules import find_claim, hash_of


def test_the_rules_are_json_and_the_hash_knows_every_part():
    claim = find_claim("P1")
    json.dumps(claim["rule"])
    for change in ({"claim": "Another."}, {"rule": {**claim["rule"], "contrast": "another"}}):
        assert hash_of({**claim, **change}) != hash_of(claim)
    assert hash_of({**claim, "reason": "Another."}) == hash_of(claim)
