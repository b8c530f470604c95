"""A stand-in for mcjax.train, in the tests of what starts it."""

# It does what the job's config says it should.
TRAIN = """
import json, os, pathlib, sys, time
config = json.loads(pathlib.Path(sys.argv[1].split(':', 1)[1]).read_text())
workdir = pathlib.Path(sys.argv[2].removeprefix('--workdir='))
print('training', os.getpid(), flush=True)
act = config['config']['act']
(workdir / 'checkpoints' / act).mkdir(parents=True, exist_ok=True)
(workdir / 'config.json').write_text(json.dumps({'git_revision': 'abc', 'packages': {'mcjax': '1'}}))
if act == 'sleep':
    time.sleep(60)
if act == 'killed':
    os.kill(os.getpid(), 9)
if act in ('done', 'unacceptable', 'other'):
    hash = 'else' if act == 'other' else config['config_hash']
    (workdir / 'result.json').write_text(json.dumps({'config_hash': hash, 'n': workdir.name}))
print('the last words', flush=True)
sys.exit({'failed': 1, 'mistake': 2, 'unacceptable': 3}.get(act, 0))
"""
