import asyncio, time, json, sys
import audioext as ax
from tests.bench import peers
from tests.bench.webhooks import callback
from audioext.http.urls import callback_url
import gc
if "nogc" in sys.argv: gc.disable()
async def main():
    store=None if sys.argv[1]=="memory" else sys.argv[1]
    client = ax.Client(ax.Kie("key", limits=peers.OPEN, pace=peers.NEVER, base_url="http://127.0.0.1:9"), public_url="http://127.0.0.1:{port}", listen="127.0.0.1:0", store=store, secrets=[peers.SECRET])
    async with client:
        for rounds in range(4):
            tasks=await peers.jobs(client, 2000)
            held=[await client.job(t.ref) for t in tasks]
            waits=[asyncio.ensure_future(j.result(timeout=600)) for j in held]
            await asyncio.sleep(0.3)
            hooks=[ax.Webhook(path=callback_url(client.public_url, peers.SECRET,"kie",t.ref).path, body=callback(t.task_id), headers={"Content-Type":"application/json"}) for t in tasks]
            async def w(q):
                while q:
                    assert 200==await client.inbox.accept(q.pop())
            if len(sys.argv)>2 and sys.argv[2]!="nogc" and rounds==3:
                import cProfile,pstats; pr=cProfile.Profile(); pr.enable()
            t0=time.process_time()
            await asyncio.gather(*[w(hooks) for _ in range(48)])
            await asyncio.gather(*waits)
            print("inbox us", (time.process_time()-t0)/2000*1e6)
            if len(sys.argv)>2 and sys.argv[2]!="nogc" and rounds==3:
                pr.disable(); pstats.Stats(pr).sort_stats(sys.argv[2]).print_stats(45)
asyncio.run(main())
