import timeit, json, sys
import audioext as ax
from tests.bench.webhooks import callback
from audioext.models.entries import make_entry
from audioext.models.record import Asked
from audioext.models.limits import *
from audioext.state import fold as F, schedule
from audioext.state.fold import *
from audioext.state.asked import dump_asked
from audioext.state.tracks import tracks_of
from audioext.http import urls, signing
kie=ax.Kie("key"); asked=Asked(provider="kie",account="kie",request=ax.Extend(audio_id="x",model="V5"), retention=14*86400.)
body=callback("t"*24)
e=[make_entry("request",1.0,body=dump_asked(asked)),make_entry("answer",2.0,status=200,body=json.dumps({"code":200,"msg":"s","data":{"taskId":"t"*24}}).encode()),make_entry("webhook",3.0,body=body)]
R=[read(x,kie) for x in e]
import gc
if len(sys.argv)>1: gc.disable()
def t(name,f,n=2000):
    best=min(timeit.repeat(f,number=n,repeat=15))/n*1e6; print(f"{name:30} {best:.1f} us")
import orjson
t("orjson", lambda: orjson.loads(body))
t("parse_webhook", lambda: kie.parse_webhook(body)); t("fold", lambda: fold("r",R)); rec=fold("r",R)
t("tracks_of", lambda: tracks_of(asked, rec.sightings))
f=F._Facts(ref="r",asked=asked,created_at=1.0); f.learn_task(R)
for x in R: f.join(x)
t("Facts()", lambda: F._Facts(ref="r",asked=asked,created_at=1.0))
t("reached", lambda: F._reached(f)); t("record()", lambda: f.record())
t("index_of", lambda: schedule.index_of(rec, now=1.0, poll_at=None, expire_after=9.0))
t("make_entry", lambda: make_entry("webhook",3.0,headers={"content-type":"x"},body=body))
path="/x/kie/1m8c5ssqj7d501ga407rq9fd/"+"t"*43
t("read_callback", lambda: urls.read_callback(path)); t("tag", lambda: signing.tag(b"x"*32,"kie","1m8c5ssqj7d501ga407rq9fd"))
r=urls.read_callback(path)
t("tag_matches", lambda: signing.tag_matches([b"x"*32],"kie","1m8c5ssqj7d501ga407rq9fd",r.tag))
h=ax.Webhook(path=path,headers={"Content-Type":"application/json"},body=body)
t("Webhook()", lambda: ax.Webhook(path=path,headers={"Content-Type":"application/json"},body=body))
t("hook.at", lambda: h.at(1.0))
t("verify", lambda: kie.verify_webhook(h))
tr=rec.tracks[0]
import attrs
d={k:getattr(tr,k) for k in attrs.fields_dict(ax.Track)}
t("Track(**d)", lambda: ax.Track(**d))
t("evolve", lambda: attrs.evolve(tr, position=2))
t("mask replace", lambda: body.replace(b"t"*43,b"***"))
