"""What every bot invents: one message a job that shows how far it is, with no framework imported.

Give it your framework's own ways to send and to edit a text::

    progress = ProgressMessages(client, send=send, edit=edit, name="telegram")
    job = await progress.extend(chat=message.chat.id, message=message.message_id, file=voice, model="V5", ...)

The message that asks makes the key of the submit, so an update that is delivered again pays for nothing. The chat and
the message that is edited are in the job's meta (`Asker`), so that handlers go on with it after a restart.
"""

from __future__ import annotations

from audioext.bots.progress import Asker, ProgressMessages
from audioext.bots.words import Texts, in_words

__all__ = ["Asker", "ProgressMessages", "Texts", "in_words"]
