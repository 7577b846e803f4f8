"""The pictures on covers, fetched by the rules of all links."""

from __future__ import annotations

from attrs import evolve

from audioext.errors import DownloadError
from audioext.files.downloads import Downloader, Links, label_of
from audioext.files.formats import MAX_PICTURE_BYTES, FlawError, picture_suffix
from audioext.models.results import Track


async def fetch_cover(downloader: Downloader, track: Track, links: Links) -> bytes:
    """Return the picture on the cover of *track*.

    Raises:
        DownloadError: there is none, or it is no picture.
    """
    if track.image_url is None:
        raise DownloadError([f"{label_of(track)}: it has no cover"])
    own = evolve(downloader.of_job(links), max_bytes=MAX_PICTURE_BYTES)
    try:
        async with own.new_session() as session:
            fetch = own.fetch(session, track.image_url, is_fresh=links.is_fresh)
            data = b"".join([chunk async for chunk in fetch.chunks()])
    except FlawError as error:
        raise DownloadError([f"{label_of(track)}: its cover: {error}"]) from error
    if picture_suffix(data) is None:
        raise DownloadError([f"{label_of(track)}: its cover is no picture"])
    return data
