"""The institution's own task runner, in place of `flwr-clientapp`.

Takes each task from the SuperNode on loopback, with the site's runtime secret; never unpacks the
app bundle; answers with installed code. Whatever goes wrong leaves as a code of the closed list.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import Error
from flwr.app import Message as FlowerMessage
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.superexec.run_superexec import _SUPEREXEC_AUTH_METHODS
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.errors import ClientError
from client.folder import Folder, open_folder
from client.refusals import Refusals
from client.tasks import Tasks
from configs import files, flower_app
from privacy import flower
from privacy.errors import EgressDenied
from privacy.wire import FAILURES

_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1
_CODES = {word: number for number, word in FAILURES.items()}
# What an error's own code means to the coordinator; every other code is "failed".
_WORDS = {
    "not-approved": "not-approved",
    "unknown-run": "not-approved",
    "budget-exhausted": "budget-exhausted",
    "round-spent": "round-already-spent",
    "plan-invalid": "plan-not-acceptable",
    "plan-not-acceptable": "plan-not-acceptable",
    "adapter-differs": "plan-not-acceptable",
    "ledger-fault": "ledger-fault",
    "ledger-restored": "evidence-inconsistent",
    "log-restored": "evidence-inconsistent",
    "log-forked": "evidence-inconsistent",
    "log-rolled-back": "evidence-inconsistent",
    "stale-request": "evidence-inconsistent",
    "have": "evidence-inconsistent",
    "all-quarantined": "data-not-usable",
    "data-not-usable": "data-not-usable",
    "records-missing": "data-not-usable",
    "trainer-stopped": "runner-stopped",
    "prepared-across": "data-not-usable",
    "set-changed": "data-not-usable",
    "withdrawals-damaged": "data-not-usable",
    "egress-denied": "refused-by-gate",
    "unknown-message": "unknown-message",
}

log = logging.getLogger("privity.runner")


def error_for(fault: BaseException) -> Error:
    """The Flower error that may leave for `fault`: a number and its fixed word, nothing else."""
    word = _WORDS.get(str(getattr(fault, "code", "")), "failed")
    if word == "failed" and type(fault).__module__ == "client.records":
        word = "data-not-usable"
    return Error(code=_CODES[word], reason=word)


def answer(tasks: Tasks, request: FlowerMessage, refusals: Refusals | None = None) -> FlowerMessage:
    """Answer one Flower message with installed code, or with a code that the log holds too."""
    kinds = {kind: name for name, kind in flower.TYPES.items()}
    try:
        if request.metadata.message_type not in kinds:
            raise ClientError("a message of an unknown type came in", code="unknown-message")
        message = flower.from_records(request.content, kind=kinds[request.metadata.message_type])
        return FlowerMessage(flower.to_records(tasks.answer(message)), reply_to=request)
    except Exception as fault:
        # The sentence is for the operator's own terminal; our errors never quote a record, and a
        # foreign one is named by its type only.
        known = getattr(fault, "exit_code", None) is not None
        log.error("%s", fault if known else f"unforeseen {type(fault).__name__}")
        if os.environ.get("PRIVITY_DEBUG") == "1":
            log.exception("traceback")
        error = error_for(fault)
        # A log that was restored from an older copy must not grow beside the newer one.
        if refusals is not None and getattr(fault, "code", "") != "log-restored":
            refusals.note(kinds.get(request.metadata.message_type, "unknown"), error.reason)
            refusals.alarm(fault)
        return FlowerMessage(error, reply_to=request)


def serve(folder: Folder, address: str) -> None:
    """Take tasks from the SuperNode at `address` until the process is stopped."""
    secret = files.read_secret(folder.runtime / "superexec.secret")
    retry = make_simple_http_retry_invoker()
    flower.hasten()
    acquire = RuntimeHttpClient.from_server_address(
        address,
        True,
        None,
        [
            RuntimeVersionHttpInterceptor("SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=secret, protected_methods=_SUPEREXEC_AUTH_METHODS
            ),
        ],
        retry_invoker=retry,
    )
    tasks, refusals = Tasks(folder), Refusals(folder)
    while True:
        given = acquire.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        if given.HasField("task") and given.token:
            _work(tasks, address, given.token, refusals)
        else:
            time.sleep(_POLL_SECONDS)


def _work(tasks: Tasks, address: str, token: str, refusals: Refusals) -> None:
    client = RuntimeHttpClient.from_server_address(
        address,
        True,
        None,
        [RuntimeVersionHttpInterceptor("flwr-clientapp"), RuntimeTokenHttpInterceptor(token)],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    context = None
    try:
        request, context, run, _bundle = pull_task_input(client)
        if run.fab_hash == flower_app.digest():
            reply = answer(tasks, request, refusals)
        else:
            log.error("the run carries a foreign app bundle; it was not opened and not answered")
            error = error_for(EgressDenied("foreign bundle"))
            refusals.note("task", error.reason)
            reply = FlowerMessage(error, reply_to=request)
        push_message(client, reply, context)
    except Exception as fault:
        # The SuperNode reports an unanswered task by itself; the runner stays for the next one.
        log.error("a task could not be handed back (%s)", type(fault).__name__)
    finally:
        push_task_output(client, context, SubStatus.COMPLETED, "")
        if heartbeat.is_running:
            heartbeat.stop()
        client.close()


def _die_with_parent() -> None:
    """Ask Linux to stop this process when the SuperNode dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == 1:
            raise SystemExit(0)


def main(arguments: list[str]) -> int:
    """Entry point of the child process: FOLDER ADDRESS."""
    _die_with_parent()
    # The terminal's Ctrl-C reaches the whole group; the SuperNode decides when its runner ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for chatty in ("flwr", "httpx", "httpcore", "presidio-analyzer"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        serve(open_folder(Path(arguments[0])), arguments[1])
    except Exception as fault:
        if os.environ.get("PRIVITY_DEBUG") == "1":
            raise
        known = getattr(fault, "exit_code", None) is not None
        log.error("%s", fault if known else f"unforeseen {type(fault).__name__}")
        return 1
    return 0


def _stop(_number: int, _frame: Any) -> None:
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
