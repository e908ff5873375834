"""Documents by field: what the schema names is replaced as that, and the form holds."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import form_csv, form_fhir, form_hl7, form_json, forms, redact
from client.forms import Form, FormError
from client.redact import Redacted
from privacy.errors import Quarantined
from privacy.surrogates import Surrogates
from tests.client.reader import SECRET, Reader

HL7 = (
    "MSH|^~\\&|LAB|St Elsewhere|EHR|Mercy|20240305101500-0500||ORU^R01|MSG0001|P|2.5\r"
    "PID|1||1234567^^^MRN^MR~987-65-4321^^^SSA^SS||Lopez^Maria^Q^Jr||19700503|F|||"
    "12 Elm St^Apt 3^Springfield^IL^62704||(217)555-3412^PRN^PH~^NET^Internet^m@lopez.org\r"
    "NK1|1|Lopez^Carlos|HUS||2175559999\r"
    "OBX|1|TX|NOTE||Lopez seen 20\\T\\30\\.br\\MRN 1234567||||||F\r"
    "OBX|2|NM|2345-7^Glucose^LN||182|mg/dl|70-105|H|||F\r"
    'NTE|1||Carlos says ""|""\r'
    "ZZZ|1|Maria told|5.2\r"
)


def run(form: Form, person: str = "p", *, strict: bool = False) -> Redacted:
    return only(form, person, strict=strict)  # type: ignore[return-value]


def only(form: Form, person: str = "p", *, strict: bool = False) -> Redacted | Quarantined:
    (done,) = redact.redact(
        [form], [person], tool=Reader(), surrogates=Surrogates(SECRET), strict=strict
    )
    return done


def test_an_hl7_message_keeps_its_form_and_loses_its_people() -> None:
    done = run(form_hl7.read(HL7))
    for gone in ("Lopez", "Maria", "Carlos", "1234567", "987-65-4321", "19700503", "12 Elm",
                 "Springfield", "62704", "555-3412", "m@lopez", "2175559999", "Elsewhere",
                 "MSG0001"):  # fmt: skip
        assert gone not in done.text, gone
    for kept in ("ORU^R01", "^MRN^MR~", "^IL^", "|F|", "2345-7^Glucose^LN||182|mg/dl|70-105|H",
                 "^PRN^PH~", "\\T\\30\\.br\\", '|""', "|5.2", "^Jr"):  # fmt: skip
        assert kept in done.text, kept
    for mark in "|^~&\r\\":
        assert done.text.count(mark) == HL7.count(mark), repr(mark)


def test_a_name_is_the_same_person_in_its_field_and_in_a_note() -> None:
    text = run(form_hl7.read(HL7)).text
    family, given_name = re.search(r"MR~[^|]*\|\|(\w+)\^(\w+)\^", text).groups()  # type: ignore[union-attr]
    assert f"||{family} seen" in text
    assert f"ZZZ|1|{given_name} told" in text
    husband = re.search(r"NK1\|1\|(\w+)\^(\w+)", text)
    assert husband is not None
    assert husband[1] == family
    assert f"NTE|1||{husband[2]} says" in text


def test_hl7_dates_move_together_and_keep_their_form() -> None:
    text = run(form_hl7.read(HL7.replace("19700503", "20240303"))).text
    seen = re.search(r"\|(\d{8})101500-0500\|", text)
    born = re.search(r"\|\|(\d{8})\|F\|", text)
    assert seen is not None
    assert born is not None
    from datetime import datetime

    gap = datetime.strptime(seen[1], "%Y%m%d") - datetime.strptime(born[1], "%Y%m%d")
    assert gap.days == 2


def test_spans_lie_where_the_values_stood() -> None:
    done = run(form_hl7.read(HL7))
    taken = {HL7[span.start : span.end]: span.type for span in done.spans}
    assert taken["987-65-4321"] == "NATIONAL_ID"
    assert taken["1234567"] == "RECORD_NUMBER"
    assert taken["Maria"] == taken["Lopez"] == "PERSON"
    assert taken["m@lopez.org"] == "EMAIL_ADDRESS"
    assert all(a.end <= b.start for a, b in zip(done.spans, done.spans[1:], strict=False))


@pytest.mark.parametrize("marks", ["|^~\\&", "#!~?*"])
def test_a_message_may_divide_itself_with_other_marks(marks: str) -> None:
    other = HL7.translate(str.maketrans("|^~\\&", marks))
    done = run(form_hl7.read(other)).text
    assert "Lopez" not in done
    assert "Maria" not in done
    assert done.count(marks[0]) == other.count(marks[0])


NAME = st.text(st.sampled_from("abcdefghijklmnop"), min_size=4, max_size=9).map(str.title)


@settings(deadline=None, max_examples=40)
@given(
    family=NAME, first=NAME, number=st.integers(10**6, 10**9).map(str),
    note=st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cf")), max_size=30),
)  # fmt: skip
def test_whatever_a_note_says_no_typed_value_is_left(
    family: str, first: str, number: str, note: str
) -> None:
    marks = form_hl7._Marks()
    said = marks.encode(f"{note} {first} {family}\n{number}")
    message = f"PID|1||{number}^^^MRN||{family}^{first}\rNTE|1||{said}|~\r"
    done = only(form_hl7.read(message))
    if isinstance(done, Quarantined):
        return
    assert number not in done.text
    for name in (family, first):
        assert re.search(rf"(?<!\w){name}(?!\w)", done.text) is None
    assert done.text.count("|") == message.count("|")
    assert done.text.count("\r") == message.count("\r")


BUNDLE: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {
            "fullUrl": "urn:uuid:2f9a1c3e-1111-4a4a-9b9b-1234567890ab",
            "resource": {
                "resourceType": "Patient",
                "id": "pat-17",
                "text": {
                    "status": "generated",
                    "div": '<div xmlns="http://www.w3.org/1999/xhtml"><p>Maria <b>Lopez</b>'
                    "</p><p>A &amp; B</p></div>",
                },
                "identifier": [
                    {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "987-65-4321"},
                    {"type": {"coding": [{"code": "MR"}]}, "value": "A-123456"},
                ],
                "name": [{"family": "Lopez", "given": ["Maria", "Quinta"]}],
                "telecom": [{"system": "phone", "value": "(217) 555-3412"}],
                "gender": "female",
                "birthDate": "1970-05-03",
                "deceasedDateTime": "2020-05-03T10:00:00Z",
                "address": [{"line": ["12 Elm St"], "city": "Springfield", "state": "IL"}],
                "photo": [{"contentType": "image/png", "data": "iVBORw0KGgo="}],
            },
        },
        {
            "resource": {
                "resourceType": "Observation",
                "id": "obs-1",
                "status": "final",
                "code": {"coding": [{"code": "2345-7", "display": "Glucose"}]},
                "subject": {"reference": "Patient/pat-17", "display": "Maria Lopez"},
                "valueQuantity": {"value": 182, "unit": "mg/dL"},
                "note": [{"text": "Lopez said no; A-123456 is hers"}],
                "presentedForm": [
                    {
                        "contentType": "text/plain",
                        "data": base64.b64encode(b"Maria was here").decode(),
                    }
                ],
            }
        },
    ],
}


def test_a_fhir_bundle_stays_a_bundle_whose_references_lead_somewhere() -> None:
    done = run(form_fhir.read(json.dumps(BUNDLE, indent=2)))
    made = json.loads(done.text)
    patient, seen = (entry["resource"] for entry in made["entry"])
    for gone in ("Lopez", "Maria", "Quinta", "987-65", "123456", "3412", "1970-05-03", "12 Elm",
                 "Springfield", "pat-17", "2f9a1c3e", "iVBOR"):  # fmt: skip
        assert gone not in done.text, gone
    assert seen["subject"]["reference"] == f"Patient/{patient['id']}"
    name = patient["name"][0]
    full = f"{name['given'][0]} {name['given'][1]} {name['family']}"
    assert seen["subject"]["display"].split()[-1] == name["family"]
    assert full.split()[-1] in seen["note"][0]["text"]
    assert patient["text"]["div"].startswith('<div xmlns="http://www.w3.org/1999/xhtml"><p>')
    assert "A &amp; B" in patient["text"]["div"]
    inside = base64.b64decode(seen["presentedForm"][0]["data"]).decode()
    assert inside == f"{name['given'][0]} was here"
    assert seen["code"] == BUNDLE["entry"][1]["resource"]["code"]
    assert seen["valueQuantity"] == {"value": 182, "unit": "mg/dL"}
    assert patient["gender"] == "female"
    assert patient["address"][0]["state"] == "IL"
    assert patient["deceasedDateTime"].endswith("T10:00:00Z")
    born, died = patient["birthDate"], patient["deceasedDateTime"][:10]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", born)
    from datetime import date

    gap = date.fromisoformat(died) - date.fromisoformat(born)
    assert gap == date(2020, 5, 3) - date(1970, 5, 3)


def test_a_year_of_birth_stays_in_clinical_and_moves_in_strict() -> None:
    source = '{"resourceType": "Patient", "birthDate": "1970"}'
    assert run(form_fhir.read(source)).text == source
    moved = {json.loads(run(form_fhir.read(source), f"p{n}", strict=True).text)["birthDate"]
             for n in range(8)}  # fmt: skip
    assert moved != {"1970"}


def test_nested_json_goes_by_its_keys_and_keeps_its_layout() -> None:
    source = (
        '{ "patient_name":"Ann \\u00c9lise Lopez",\n  "phone": 5551234567, "age": 93, "sex": "F",'
        ' "visits":[{"date":"2024-01-02","glucose":182,"note":"Lopez says\\n\\"hello\\" 1234567"}],'
        ' "ok":true,"none":null,"x":[1,[2,["Lopez"]]] }'
    )
    done = run(form_json.read(source))
    made = json.loads(done.text)
    assert "Lopez" not in done.text
    assert isinstance(made["phone"], int)
    assert made["age"] == 90
    assert made["sex"] == "F"
    assert made["visits"][0]["glucose"] == 182
    assert made["visits"][0]["note"].count('"hello"') == 1
    assert made["visits"][0]["note"].split()[0] == made["patient_name"].split()[-1]
    assert made["x"][:1] == [1]
    assert done.text.startswith('{ "patient_name":"')
    taken = [source[span.start : span.end] for span in done.spans]
    assert "Ann \\u00c9lise Lopez" in taken
    assert "1234567" in taken


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-99999, 99999) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
        max_leaves=12,
    )
)
def test_any_json_comes_back_as_json_of_the_same_shape(tree: Any) -> None:
    for ascii_only in (True, False):
        source = json.dumps(tree, ensure_ascii=ascii_only)
        done = only(form_json.read(source))
        if isinstance(done, Quarantined):
            continue
        made = json.loads(done.text)
        assert type(made) is type(tree)
        if isinstance(tree, list | dict):
            assert len(made) <= len(tree)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("[" * 80 + "]" * 80, "too-deep"),
        ("[" * 100_000 + "]" * 100_000, "not-json"),
        ('{"a": 1, "a": "Maria"}', "not-json"),
        ("1" * 5000, "not-json"),
        ('{"a": ', "not-json"),
    ],
)
def test_bombs_and_riddles_are_refused(source: str, code: str) -> None:
    with pytest.raises(FormError) as fault:
        form_json.read(source)
    assert fault.value.code == code
    assert "Maria" not in str(fault.value)


def test_more_cells_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MAX_CELLS", 10)
    with pytest.raises(FormError, match="too-large"):
        form_json.read(json.dumps(["word"] * 11))
    assert form_json.read(json.dumps(["word"] * 10)).cells


def test_a_table_goes_by_its_header() -> None:
    head = "mrn;Patient Name;DOB;Sex;ZIP;diagnosis;notes"
    kind = form_csv.table(head)
    assert (kind.delimiter, kind.roles[3], kind.owner) == (";", "keep", 0)
    lines = [
        head + "\n",
        'A-77123;"Lopez, Maria";05/03/1970;M;02139;Hodgkin lymphoma;"Maria, ""frail"";\nLopez"\n',
        "x;y\n",
    ]
    rows = list(form_csv.rows(iter(lines), kind))
    first = rows[0]
    assert isinstance(first, list)
    form = form_csv.read(first, kind)
    cells = form_csv.split(run(form, form.person or "").text)
    assert cells[3] == "M"
    assert cells[5] == "Hodgkin lymphoma"
    family, given_name = cells[1].split(", ")
    assert cells[6] == f'{given_name}, "frail";\n{family}'
    assert not {"A-77123", "02139"} & set(cells)
    assert isinstance(rows[1], FormError)
    assert kind.write(cells).count('"') >= 6


def test_a_first_row_with_somebody_in_it_is_no_header() -> None:
    assert form_csv.table("Maria Lopez,217-555-3412,maria@lopez.org").header is None


def test_one_cell_that_cannot_be_scrubbed_holds_the_whole_document_back() -> None:
    done = only(form_json.read('{"name": "Ann Roy", "a": "fine", "b": "BAD"}'))
    assert isinstance(done, Quarantined)
    assert done.code == "residual"


def test_a_typed_value_that_the_reader_overlooks_holds_the_document_back() -> None:
    class Blind:
        def scrub_many(self, texts: Any, persons: Any) -> Any:
            from privacy.scrub import Scrubbed

            return (Scrubbed(text, ()) for text in texts)

    form = form_json.read('{"patient_name": "Ann Quillfeather", "note": "Quillfeather, Ann '
                          'Quillfeather"}')  # fmt: skip
    (done,) = redact.redact(
        [form], ["p"], tool=Blind(), surrogates=Surrogates(SECRET), strict=False
    )
    assert isinstance(done, Quarantined)
    assert done.code == "verify"


def test_first_and_last_name_of_one_object_are_one_person_in_its_texts() -> None:
    source = (
        '{"name": {"first": "Zorabel", "last": "Quillfeather"}, "when": "2024-01-05T10:00:00Z", '
        '"note": "Zorabel Quillfeather", "staff_first_name": "Ubbo", "staff_last_name": "Roe"}'
    )
    made = json.loads(run(form_json.read(source)).text)
    assert "Zorabel" not in str(made)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT10:00:00Z", made["when"])
    assert made["when"] != "2024-01-05T10:00:00Z"
    alias = Surrogates(SECRET).of("p")
    full = alias.replace("PERSON", "Zorabel Quillfeather")
    assert f"{made['name']['first']} {made['name']['last']}" == full
    staff = alias.replace("PERSON", "Ubbo Roe")
    assert f"{made['staff_first_name']} {made['staff_last_name']}" == staff
    assert json.loads(run(form_json.read('{"first": "dose", "last": "dose"}')).text) == {
        "first": "dose", "last": "dose",
    }  # fmt: skip


def test_a_table_inside_a_text_goes_by_its_header_too() -> None:
    text = "patient_name,phone,finding\nZorabel Roe,617-555-1234,cough\n\nBo Zett,617,rash\n"
    form = redact.embedded(text)
    done = run(form)
    lines = done.text.splitlines()
    assert lines[0] == "patient_name,phone,finding"
    assert lines[1].endswith(",cough")
    assert lines[3].endswith(",rash")
    assert "Zorabel" not in done.text
    assert "1234" not in done.text
    assert len(redact.embedded("Dear name,\nphone me, please").cells) == 1
    assert len(redact.embedded("one line, name").cells) == 1
