"""Progress messages for bots: one message per job, edited as the job progresses, with no framework imported.

Give it your framework's functions to send and to edit a text::

    progress = ProgressMessages(client, send=send, edit=edit, name="telegram")
    job = await progress.extend(chat=message.chat.id, message=message.message_id, file=voice, model="V5", ...)

The ids of the chat and the user's message make the key of the submit, so an update that is delivered twice pays once.
The chat and the progress message are in the job's meta (`Asker`), so handlers find them again after a restart.
"""

from __future__ import annotations

from audioext.bots.progress import Asker, ProgressMessages
from audioext.bots.words import Texts, in_words

__all__ = ["Asker", "ProgressMessages", "Texts", "in_words"]
