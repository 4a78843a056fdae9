"""The rows of a map on the workers of a Dask cluster: who answers which, and whether they would answer alike.

Dask does all else: it moves rows and answers, runs tasks again elsewhere when a worker dies, and drops them when the
client does. A row's answer does not depend on the worker, so none is sent twice and the order is that of the rows.
Knows nothing of tables.
"""

import secrets
import threading
from dataclasses import dataclass

from nbllm import __version__
from nbllm.catalogue import find, pull, pullable
from nbllm.catalogue.places import fingerprint
from nbllm.chat.batch import ChatBatch
from nbllm.chat.conversation import Chat
from nbllm.chat.grammar import wanted
from nbllm.chat.schema import Schema
from nbllm.chat.transcript import Transcript
from nbllm.errors import ModelNotFoundError, NbLLMError, brief, need
from nbllm.model import load
from nbllm.runtime.events import StopFlag
from nbllm.runtime.options import Sampling

LEAST, MOST = 8, 128  # rows of a task: fewer share a pass over the weights badly, more are lost when a worker dies
TASKS = 4  # a worker, so that all end at about the same time

_models = {}  # of this worker: Work.model and fingerprint -> Model; at most one
_lock = threading.Lock()  # a worker may have several threads, and a model is used by one at a time


@dataclass(frozen=True)
class Work:
    """What makes an answer, besides its row.

    Attributes
    ----------
    version : str
        Of nbllm.
    model : str
        A known name, or a path that workers may have, too.
    fingerprint : str
        Of the model's file.
    system, messages
        Of the conversation that is gone on with.
    options : Sampling
    schema : dict or None
        Which the answers fit.
    """

    version: str
    model: str
    fingerprint: str
    system: str | None
    messages: tuple
    options: Sampling
    schema: dict | None = None


def answers(client, work: Work, rows: list):
    """Have rows answered; yields (number, Reply or NbLLMError) in any order.

    client : dask.distributed.Client
    rows : list of (int, str or NbLLMError)

    Raises
    ------
    OptionError
        It is no client that can be asked.
    NbLLMError
        A worker cannot do it as the others do, or the cluster does not answer any more.
    """
    try:
        from dask.distributed import Client, as_completed
    except ImportError:
        raise NbLLMError('engine= needs Dask: pip install "nbllm[dask]"') from None
    need(isinstance(client, Client), "engine", client, "a dask.distributed.Client")
    need(not client.asynchronous, "engine", client, "a client that was not made with asynchronous=True")
    need(client.status == "running", "engine", client, "a client that is connected, which this one is not any more")
    tasks = []
    try:
        _refuse(client.run(_why_not, work, on_error="return"))
        workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        size = min(max(-(-len(rows) // (TASKS * workers)), LEAST), MOST)
        name = f"nbllm-{secrets.token_hex(8)}"
        for at in range(0, len(rows), size):
            tasks.append(client.submit(_answer, work, rows[at : at + size], key=(name, at)))
        for task in as_completed(tasks):
            yield from task.result()
            task.release()
    except NbLLMError:
        raise
    except Exception as error:  # Dask's own, and whatever ended a task on its worker
        raise NbLLMError(f"the cluster has not answered: {brief(error)}; the same call goes on from there") from error
    finally:
        if client.status == "running":  # else they have ended with it
            client.cancel([task for task in tasks if not task.done()])
            for task in tasks:  # an error keeps them alive, and so what they came to
                task.release()


def _refuse(told):
    """told : worker -> why it cannot, or None, or what went wrong there."""
    for worker, why in told.items():
        if isinstance(why, ModuleNotFoundError):
            why = f"{why}; install nbllm {__version__} there"
        if why is not None:
            raise NbLLMError(f"the worker {worker} cannot answer: {why}")


def _why_not(work):
    """Runs on a worker: why it would not answer as the others do, or None."""
    if __version__ != work.version:
        return f"it has nbllm {__version__} and the client {work.version}; install the same"
    try:
        wanted(work.schema)
    except NbLLMError as error:  # it lacks llguidance
        return str(error)
    try:
        path = find(work.model)
    except ModelNotFoundError as error:
        return None if pullable(work.model) else str(error)
    if fingerprint(path) != work.fingerprint:
        return f"its file {path} is not the client's; copy that one"
    return None


def _answer(work, rows):
    """Runs on a worker: the answers to some rows."""
    with _lock:
        model = _model(work)
        chat = Chat(model, transcript=Transcript(work.system, list(work.messages)))
        batch = ChatBatch(chat, work.options, work.schema and Schema(work.schema))
        try:
            return list(batch.replies(rows, StopFlag()))
        finally:
            batch.close()


def _model(work):
    key = work.model, work.fingerprint
    if key not in _models:
        for model in _models.values():
            model.close()
        _models.clear()
        try:
            path = find(work.model)
        except ModelNotFoundError:
            path = pull(work.model)
        why = _why_not(work)
        if why:
            raise NbLLMError(f"a worker cannot answer: {why}")
        _models[key] = load(path)
    return _models[key]
