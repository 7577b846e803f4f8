# What `__init__.py` loads on first use, for type checkers.
from audioext.providers._account import HostedAccount as HostedAccount
from audioext.providers._account import Vendor as Vendor
from audioext.providers._answers import Code as Code
from audioext.providers._answers import CodeTable as CodeTable
from audioext.providers._fields import FieldRules as FieldRules
from audioext.providers.kie import Kie as Kie
from audioext.providers.kie_jobs import KieJobs as KieJobs
from audioext.providers.musicgpt import MusicGpt as MusicGpt
from audioext.providers.sunoapi import SunoApi as SunoApi
from audioext.providers.vidgo import Vidgo as Vidgo

NAMES: tuple[str, ...]

def load(name: str) -> type[Kie | KieJobs | MusicGpt | SunoApi | Vidgo]: ...
