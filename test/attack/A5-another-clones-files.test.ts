/**
 * A5: who has taken over one VMM tries to reach another clone: its process, memory and descriptors, its template, and
 * what Mayfly keeps. Expected: EACCES or EPERM each time. Method: a program that the jail's own launchers start under
 * the very uid, group and capabilities of a living VMM, while another clone lives.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Template } from '../../src/clone/template.ts';
import type { Machine } from '../../src/clone/vmm/contract.ts';
import { home, isAlive, openRig } from '../vm/rig.ts';
import type { Rig } from '../vm/rig.ts';

let rig: Rig;
let template: Template;
let [one, other]: Machine[] = [];
let run = '';

before(async () => {
  rig = await openRig();
  template = await rig.template('shell');
  [one, other] = [await rig.vmm.spawn(template.state), await rig.vmm.spawn(template.state)];
  run = await mkdtemp(join(home, 'a5-'));
  await writeFile(join(run, 'journal'), 'another run\n');
  // There is evidence to be read: of a run of this home.
  const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
  const counting = fileURLToPath(new URL('../../examples/shell/count.sh', import.meta.url));
  await promisify(execFile)(process.execPath, [main, 'run', '--exec', counting, '--data', '{"n": 1}'], {
    timeout: 120_000, env: { ...process.env, MAYFLY_HOME: home },
  });
});

after(async () => {
  await one?.kill();
  await other?.kill();
  await rm(run, { recursive: true, force: true });
});

interface Ended {
  readonly status: number;
  readonly said: string;
}

/** As the VMM of `machine`, but another program. */
async function asVmm(machine: Machine, argv: readonly string[]): Promise<Ended> {
  const status = await readFile(`/proc/${machine.identity.pid}/status`, 'utf8');
  const uid = /^Uid:\t(\d+)/m.exec(status)?.[1] ?? '';
  const gid = /^Gid:\t(\d+)/m.exec(status)?.[1] ?? '';
  assert.ok(Number(uid) > 1_000_000, 'a uid of its own');
  const bare = ['--clear-groups', '--inh-caps=-all', '--bounding-set=-all', '--no-new-privs', '--'];
  const options = { timeout: 20_000, env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' } };
  try {
    const { stdout } = await promisify(execFile)(
      'setpriv', [`--reuid=${uid}`, `--regid=${gid}`, ...bare, ...argv], options,
    );
    return { status: 0, said: stdout };
  } catch (thrown) {
    const { code, stderr } = thrown as { readonly code: number; readonly stderr: string };
    return { status: code, said: stderr };
  }
}

const refused = /Permission denied|Operation not permitted/;

test('the method itself works: it reads what everybody may', async (t) => {
  if (!rig.jail.confined || one === undefined) return t.skip('needs root: without it a VMM has no uid of its own');
  assert.equal((await asVmm(one, ['head', '-c', '1', '/etc/passwd'])).status, 0);
});

test('another VMM\'s memory, descriptors, environment and life', async (t) => {
  if (!rig.jail.confined || one === undefined || other === undefined) {
    return t.skip('needs root: without it a VMM has no uid of its own');
  }
  const { pid } = other.identity;
  const descriptors = await readdir(`/proc/${pid}/fd`);
  assert.ok(descriptors.length >= 6);
  const files = ['mem', 'environ', 'maps', 'auxv', 'root/etc/passwd', 'cwd/etc/passwd'];
  const attempts = [
    ...descriptors.map((name) => ['head', '-c', '1', `/proc/${pid}/fd/${name}`]),
    ...files.map((name) => ['head', '-c', '1', `/proc/${pid}/${name}`]),
    ['ls', `/proc/${pid}/fd`], ['ls', `/proc/${pid}/map_files`],
    ['sh', '-c', `kill -9 ${pid}`], ['sh', '-c', `kill -STOP ${pid}`],
    ['nsenter', '-t', String(pid), '-n', 'true'],
    ['prlimit', '--pid', String(pid), '--nofile=1'],
  ];
  for (const argv of attempts) {
    const { status, said } = await asVmm(one, argv);
    assert.ok(status !== 0 && refused.test(said), `${argv.join(' ')}: ${status} ${said}`);
  }
  assert.equal(await isAlive(other.identity), true);
});

test('templates, the store, keys, evidence and the folders of runs', async (t) => {
  if (!rig.jail.confined || one === undefined) return t.skip('needs root: without it a VMM has no uid of its own');
  const folder = template.state.folder;
  const files = [
    template.state.ram, join(folder, 'state'), join(folder, 'template.json'), join(run, 'journal'),
    join(home, 'keys/signing.key'), join(home, 'evidence/evidence.jsonl'),
  ];
  for (const path of files) {
    const read = await asVmm(one, ['head', '-c', '1', path]);
    assert.ok(read.status !== 0 && refused.test(read.said), `read ${path}: ${read.status} ${read.said}`);
    const written = await asVmm(one, ['sh', '-c', 'exec 3<>"$1"', 'sh', path]);
    assert.ok(written.status !== 0 && refused.test(written.said), `write ${path}: ${written.status} ${written.said}`);
  }
  for (const path of [home, join(home, 'templates'), join(home, 'store'), template.state.baseImage]) {
    const written = await asVmm(one, ['sh', '-c', 'echo x >> "$1/new" || echo x >> "$1"', 'sh', path]);
    assert.ok(written.status !== 0, `write ${path}`);
  }
});
