"""Messages and bundles become records of the right persons, and of nobody else."""

from __future__ import annotations

import json
from pathlib import Path

from tests.client.source import read, triples

HL7 = (
    "MSH|^~\\&|LAB|GEN|EHR|GEN|20240101||ORU^R01|1|P|2.5\r"
    "PID|1||77001^^^GEN^MR||Zebulon^Ada||19600102|F|||||212-555-0101\r"
    "OBX|1|NM|2345-7^Glucose^LN||182|mg/dL\r"
    "OBX|2|FT|1^Findings^L||Lungs are clear\\.br\\no effusion\r"
    "DG1|1||E11^Diabetes^I10|Type 2 diabetes\r"
)


def test_references_of_a_bundle_are_followed_in_each_way_that_they_are_written(
    tmp_path: Path,
) -> None:
    """Else each of a patient's reports would count as a person of its own."""
    path = tmp_path / "bundle.json"
    seen = {"resourceType": "Observation", "code": {"text": "Glucose"},
            "valueQuantity": {"value": 182}}  # fmt: skip
    report = {"resourceType": "DiagnosticReport", "code": {"coding": None}, "conclusion": "fine"}
    written = {
        "urn:uuid:11": "a7", "urn:uuid:99": "99", "http://x/fhir/Patient/a7": "a7",
        "Patient/a7/_history/2": "a7",
    }  # fmt: skip
    path.write_text(json.dumps({"resourceType": "Bundle", "entry": [
        {"fullUrl": "urn:uuid:11", "resource": {"resourceType": "Patient", "id": "a7",
         "name": [{"family": "Zebulon"}]}},
        {"fullUrl": "urn:uuid:22", "resource": seen},
        *({"resource": {**report, "subject": {"reference": name},
                        "result": [{"reference": "urn:uuid:22"}]}} for name in written),
        {"resource": {**report, "subject": {"reference": "urn:uuid:11"}, "result": None,
                      "code": {"text": "alone"}}},
    ]}))  # fmt: skip
    found = read(path, tmp_path).reading.records
    assert [record.person for record in found] == [*written.values(), "a7"]
    assert all("Glucose: 182" in record.instruction for record in found[:-1])
    assert [("name", "Zebulon") in record.columns for record in found] == [
        person == "a7" for person in [*written.values(), "a7"]
    ]


def test_a_reference_to_nothing_is_not_one_to_the_last_resource(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    report = {"resourceType": "DiagnosticReport", "code": {"text": "x-ray"}, "conclusion": "fine",
              "subject": {"reference": ""}}  # fmt: skip
    patient = {"resourceType": "Patient", "id": "a7", "name": [{"family": "Zebulon"}]}
    path.write_text(json.dumps({"resourceType": "Bundle", "entry": [
        {"resource": report}, {"resource": patient},
    ]}))  # fmt: skip
    (found,) = read(path, tmp_path).reading.records
    assert found.person != "a7"
    assert ("name", "Zebulon") not in found.columns


def test_a_resource_of_a_bulk_export_ends_at_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "reports.ndjson"
    report = {"resourceType": "DiagnosticReport", "code": {"text": "one\u2028two\x85three"},
              "subject": {"reference": "Patient/a7"}, "conclusion": "fine"}  # fmt: skip
    path.write_text((json.dumps(report, ensure_ascii=False) + "\r\n") * 2, newline="")
    found = read(path, tmp_path).reading
    assert [record.person for record in found.records] == ["a7", "a7"]
    assert found.faults == ()


def test_a_conversation_or_a_message_of_two_persons_is_nobodys_record(tmp_path: Path) -> None:
    """Its gradient would be clipped as one person's, and a withdrawal would miss the other."""
    chat = tmp_path / "chat.csv"
    chat.write_text(
        "conversation_id,unit_id,speaker,text\n1,p1,patient,it hurts\n1,,doctor,where\n"
        "2,p2,patient,a cough\n2,p2,doctor,since when\n2,p3,patient,a rash\n2,p3,doctor,oh\n"
    )
    found = read(chat, tmp_path)
    assert triples(found) == [("p1", "it hurts", "where")]
    assert [fault.code for fault in found.reading.faults] == ["several-persons"]

    message = tmp_path / "in.hl7"
    other = HL7[HL7.index("PID") :].replace("77001", "77002")
    same = HL7[HL7.index("PID") :]
    message.write_text(HL7 + other + HL7 + same, newline="")
    found = read(message, tmp_path)
    assert [record.person for record in found.reading.records] == ["77001"]
    assert [fault.code for fault in found.reading.faults] == ["several-persons"]

    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps([
        {"resourceType": "Observation", "id": "o1", "code": {"text": "Glucose"},
         "subject": {"reference": "Patient/b8"}, "valueQuantity": {"value": 182}},
        *({"resourceType": "DiagnosticReport", "id": f"d{who}", "code": {"text": "Panel"},
           "subject": {"reference": f"Patient/{who}"}, "conclusion": "fine",
           "result": [{"reference": "Observation/o1"}]} for who in ("a7", "b8")),
    ]))  # fmt: skip
    found = read(bundle, tmp_path)
    assert [record.person for record in found.reading.records] == ["b8"]
    assert [fault.code for fault in found.reading.faults] == ["several-persons"]


def test_a_patients_number_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "in.hl7"
    marks = HL7.replace("|^~\\&|", "|$~\\&|", 1).replace("^", "$")
    for text, key in ((HL7, "77-001/B"), (marks, "77-001/C"), (marks, "77.2^4")):
        path.write_text(text.replace("77001", key), newline="")
        (record,) = read(path, tmp_path).reading.records
        assert record.person == key


def test_an_hl7_message_asks_about_its_report_and_knows_its_people(tmp_path: Path) -> None:
    path = tmp_path / "in.hl7"
    path.write_text(HL7 + HL7.replace("77001", "77002").replace("DG1|1", "ZZZ|1"), newline="")
    found = read(path, tmp_path)
    (record,) = found.reading.records
    assert record.person == "77001"
    assert record.response == "Type 2 diabetes"
    assert record.instruction.endswith("Glucose: 182 mg/dL\nFindings: Lungs are clear\nno effusion")
    assert ("name", "Ada Zebulon") in record.columns
    assert ("phone", "212-555-0101") in record.columns
    assert [(f.line, f.code) for f in found.reading.faults] == [(2, "no-response")]


def test_a_bundle_asks_about_its_report_with_what_it_refers_to(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [
        {"resource": {"resourceType": "Patient", "id": "a7", "birthDate": "1960-01-02",
                      "name": [{"family": "Zebulon", "given": ["Ada"]}]}},
        {"resource": {"resourceType": "Observation", "id": "o1", "status": "final",
                      "code": {"text": "Glucose"}, "subject": {"reference": "Patient/a7"},
                      "valueQuantity": {"value": 182, "unit": "mg/dL"}}},
        {"resource": {"resourceType": "DiagnosticReport", "id": "d1", "status": "final",
                      "code": {"text": "Metabolic panel"}, "subject": {"reference": "Patient/a7"},
                      "result": [{"reference": "Observation/o1"}],
                      "conclusion": "Poorly controlled diabetes"}},
    ]}))  # fmt: skip
    (record,) = read(path, tmp_path).reading.records
    assert (record.person, record.response) == ("a7", "Poorly controlled diabetes")
    assert record.instruction.endswith("Metabolic panel\nGlucose: 182 mg/dL")
    assert ("name", "Ada Zebulon") in record.columns
    assert ("birth_date", "1960-01-02") in record.columns
