"""The connector ``sqs``: sends to queues of SQS, and makes their messages events."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from automate_aws.clients import AwsClients
from automate_aws.failures import failure_code, needed
from automate_aws.sqs_messages import check_size, entry_of, event_of, is_fifo
from automate_aws.sqs_models import (
    SendBatchInput,
    SendMessageInput,
    SentBatch,
    SentMessage,
    SqsConfig,
)
from automate_kernel import (
    AutomateError,
    Connector,
    ConnectorContext,
    ErrorCodes,
    PolledEvent,
    PollResult,
    action,
    poll,
)

_MOST_MESSAGES = 100
_PAGE = 10  # of SQS
# A cursor has 65,536 characters at the most, and a receipt may have more than 1,000.
_MOST_RECEIPT_CHARACTERS = 48_000

Receipts = dict[str, list[str]]
"""The receipts of messages, by the names of their queues."""


class SqsConnector(Connector):
    """Queues of SQS."""

    key = "sqs"
    display_name = "Amazon SQS"

    def __init__(self, config: dict[str, Any], *, ctx: ConnectorContext) -> None:
        super().__init__(config, ctx=ctx)
        self._settings: SqsConfig = self.parse_config(config)
        self._clients = AwsClients(self._settings)
        # A message that is sent again is another message, unless the queue is FIFO.
        self._once = AwsClients(self._settings, max_attempts=1)

    @classmethod
    def config_schema(cls) -> type[SqsConfig]:
        """Return the model of the config."""
        return SqsConfig

    @action
    def send_message(self, given: SendMessageInput) -> SentMessage:
        """Send a message. To a FIFO queue a step that is tried again sends it once."""
        url = self._url(given.queue)
        entry = entry_of(given, url)
        check_size([entry])
        answer = self._sending(url).call("sqs", "send_message", QueueUrl=url, **entry)
        return SentMessage(
            queue=given.queue,
            message_id=needed(answer, "MessageId", "sqs send_message"),
            sequence_number=answer.get("SequenceNumber"),
        )

    @action
    def send_batch(self, given: SendBatchInput) -> SentBatch:
        """Send up to ten messages in one request. It fails if the queue refuses one of them."""
        url = self._url(given.queue)
        entries = [
            {"Id": str(number), **entry_of(message, url, number)}
            for number, message in enumerate(given.messages)
        ]
        check_size(entries)
        answer = self._sending(url).call("sqs", "send_message_batch", QueueUrl=url, Entries=entries)
        sent = {each["Id"]: each for each in answer.get("Successful") or ()}
        if len(sent) < len(entries):
            raise _partly(answer, len(sent), len(entries), again=is_fifo(url))
        return SentBatch(
            messages=[
                SentMessage(
                    queue=given.queue,
                    message_id=sent[each["Id"]]["MessageId"],
                    sequence_number=sent[each["Id"]].get("SequenceNumber"),
                )
                for each in entries
            ]
        )

    @poll("message", every="1s", max_events=_MOST_MESSAGES, timeout_seconds=90)
    def message(self, cursor: Any) -> PollResult:
        """Messages of the queues in `listen`; each is deleted once its event is saved."""
        # The kernel saves a result's events and its cursor together, and gives the cursor back:
        # so the messages whose receipts are in it have their events, and can be deleted.
        receipts = self._deleted(cursor or {})
        events: list[PolledEvent] = []
        failure: AutomateError | None = None
        listen = self._settings.listen
        for number, queue in enumerate(listen):
            # In turn, so that a busy queue takes no more than its share.
            share = (_MOST_MESSAGES - len(events)) // (len(listen) - number)
            most = _MOST_RECEIPT_CHARACTERS * (number + 1) // len(listen)
            try:
                for page in self._received(queue, share, most - _characters(receipts)):
                    events += [event for event, _ in page]
                    receipts.setdefault(queue, []).extend(receipt for _, receipt in page)
            except AutomateError as error:
                # Neither other queues nor what has come already have to wait for this one.
                failure = error
                self.ctx.logger.warning("the queue %s can't be read: %s", queue, error)
        if failure is not None and not events:
            raise failure
        return PollResult(
            events, {name: its for name, its in receipts.items() if its}, more=bool(events)
        )

    def check(self) -> str:
        """Ask for each queue, which needs the right to read its attributes."""
        for url in self._settings.queues.values():
            self._clients.call(
                "sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["QueueArn"]
            )
        return f"{len(self._settings.queues)} queue(s) answer"

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()
        self._once.close()

    def _url(self, queue: str) -> str:
        url = self._settings.queues.get(queue)
        if url is None:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"there is no queue {queue[:100]!r}",
                hint=f"the config has {', '.join(self._settings.queues) or 'none'}",
            )
        return url

    def _sending(self, url: str) -> AwsClients:
        return self._clients if is_fifo(url) else self._once

    def _received(
        self, queue: str, most: int, most_characters: int
    ) -> Iterator[list[tuple[PolledEvent, str]]]:
        """Receive up to *most* messages; yield pages of their events, each with its receipt."""
        settings = self._settings
        wait, left, free = settings.wait_seconds // len(settings.listen), most, most_characters
        while left > 0 and free > 0:
            asked = min(left, _PAGE)
            answer = self._clients.call(
                "sqs",
                "receive_message",
                QueueUrl=settings.queues[queue],
                MaxNumberOfMessages=asked,
                WaitTimeSeconds=wait,
                VisibilityTimeout=settings.visibility_seconds,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            messages = answer.get("Messages") or []
            page = self._events_of(messages, queue)
            yield page
            if len(messages) < asked:
                return
            free -= sum(len(receipt) for _, receipt in page)
            wait, left = 0, left - len(messages)

    def _events_of(
        self, messages: list[dict[str, Any]], queue: str
    ) -> list[tuple[PolledEvent, str]]:
        page = []
        for each in messages:
            event = event_of(each, queue, as_json=self._settings.bodies == "json")
            if event is None:
                # It comes again, until the queue's own redrive policy puts it aside.
                text = "message %s of the queue %s is too long for an event; it stays there"
                self.ctx.logger.warning(text, each["MessageId"], queue)
                continue
            page.append((event, each["ReceiptHandle"]))
        return page

    def _deleted(self, receipts: Receipts) -> Receipts:
        """Delete messages; return the receipts of those for which it is to be tried again."""
        left: Receipts = {}
        for queue, its in receipts.items():
            url = self._settings.queues.get(queue)
            if url is None:
                continue  # nobody listens to it any more
            waiting = iter(its)
            try:
                while page := list(islice(waiting, _PAGE)):
                    left.setdefault(queue, []).extend(self._deleted_page(url, page))
            except AutomateError as error:
                if error.code is not ErrorCodes.NOT_FOUND:
                    raise
                left.pop(queue, None)  # the queue is gone, with its messages
        return left

    def _deleted_page(self, url: str, receipts: list[str]) -> list[str]:
        answer = self._clients.call(
            "sqs",
            "delete_message_batch",
            QueueUrl=url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": each} for number, each in enumerate(receipts)
            ],
        )
        # A receipt that is too old will never do: the message comes again, and its id is known.
        failed = [each for each in answer.get("Failed") or () if not each.get("SenderFault")]
        return [receipts[int(each["Id"])] for each in failed]


def _characters(receipts: Receipts) -> int:
    return sum(len(each) for its in receipts.values() for each in its)


def _partly(answer: dict[str, Any], sent: int, most: int, *, again: bool) -> AutomateError:
    failed = answer.get("Failed") or [{}]
    code = str(failed[0].get("Code") or "")
    known = failure_code(code) or ErrorCodes.UNAVAILABLE
    if failed[0].get("SenderFault"):
        known = failure_code(code) or ErrorCodes.INVALID_ARGUMENT
    return AutomateError(
        known,
        f"the queue took {sent} of {most} messages: {code}: {str(failed[0].get('Message'))[:200]}",
        hint=None if again or not sent else "to send all again would repeat those that it took",
        # A FIFO queue's messages are never doubled.
        retryable=known.retryable and (again or not sent),
        details={"sent": [each["Id"] for each in answer.get("Successful") or ()]},
    )
