import json
from pathlib import Path

from typer.testing import CliRunner

from cyclewise import Diagnosis
from cyclewise.cli import app

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'mlp.py'}:make_learner"


def run(*arguments):
    return CliRunner().invoke(app, ["diagnose", *arguments])


def test_findings_are_printed_and_the_report_leads_with_them():
    code = Path(EXAMPLE.rpartition(":")[0]).read_text()
    Path("train.py").write_text(
        f"{code}\n\ndef wild(seed):\n    learner = make_learner(seed)\n"
        "    learner.optimizer = type(learner.optimizer)(learner.model.parameters(), lr=1e3)\n    return learner\n"
    )
    result = run("train.py:wild", "--batches", "2", "--budget", "80", "--html", "out.html")
    assert result.exit_code == 0, result.stderr
    assert "severe: " in result.stdout
    assert "what to do: " in result.stdout
    page = Path("out.html").read_text()
    assert page.index("What to do: ") < page.index("Numbers")


def test_json_is_one_document_that_reads_back():
    result = run(EXAMPLE, "--batches", "2", "--budget", "60", "--seed", "1", "--json")
    assert result.exit_code == 0, result.stderr
    record = Diagnosis.from_dict(json.loads(result.stdout))
    assert record.spent <= 60
    assert record.settings["seed"] == 1


def test_bad_options_are_usage_errors():
    assert run(EXAMPLE, "--budget", "2").exit_code == 2
    assert run("nowhere.py:x").exit_code == 2
