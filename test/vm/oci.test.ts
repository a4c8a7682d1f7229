/**
 * Goal: an image that nobody made for Mayfly serves events. Method: umoci makes an OCI layout of Debian's own packages;
 * the real command line imports it, untouched, into a home of its own and runs its command in a real VM.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { home } from './rig.ts';

const program = join(import.meta.dirname, '../../bin/mayfly');
const PACKAGES = ['base-files', 'bash', 'busybox-static', 'libc6', 'libtinfo6'];
let folder = '';
let other = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-oci-vm-'));
  other = join(folder, 'home');
  await mkdir(other, { mode: 0o711 });
  execFileSync('chmod', ['711', folder]);
  for (const name of ['store', 'artefacts']) await cp(join(home, name), join(other, name), { recursive: true });
  const run = (file: string, ...args: string[]): void => void execFileSync(file, args, { cwd: folder, stdio: 'pipe' });
  run('apt-get', 'download', ...PACKAGES);
  run('umoci', 'init', '--layout', 'layout');
  run('umoci', 'new', '--image', 'layout:deb');
  run('umoci', 'unpack', '--rootless', '--image', 'layout:deb', 'bundle');
  for (const deb of (await readdir(folder)).filter((name) => name.endsWith('.deb'))) {
    run('dpkg-deb', '-x', deb, 'bundle/rootfs');
  }
  run('umoci', 'repack', '--image', 'layout:deb', 'bundle');
  const words = '"$(echo "$event" | busybox wc -c)" "$WORD" "$0"';
  const command = `read -r event; printf '{"bytes":%d,"word":"%s","name":"%s"}' ${words}`;
  const config = ['--config.entrypoint', 'bash', '--config.entrypoint', '-c', '--config.entrypoint', command];
  run('umoci', 'config', '--image', 'layout:deb', ...config, '--config.cmd', 'default', '--config.env', 'WORD=hello');
});
after(() => rm(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function mayfly(...args: string[]): Promise<Ended> {
  const env = { ...process.env, MAYFLY_HOME: other };
  return new Promise((resolve) => {
    execFile(program, args, { env, cwd: folder }, (thrown, out, err) => {
      resolve({ code: thrown === null ? 0 : Number(thrown.code), out, err });
    });
  });
}

test("an OCI layout of Debian's packages is imported and its own command answers an event", async () => {
  const imported = await mayfly('image', 'import', 'oci:layout:deb', '--as', 'deb', '--json');
  assert.equal(imported.code, 0, imported.err);
  const { command } = JSON.parse(imported.out) as { command: { entrypoint: string[]; cmd: string[] } };
  assert.equal(command.entrypoint[0], '/bin/bash');

  const ran = await mayfly('run', '--image', 'deb', '--data', '{"a":1}');
  assert.equal(ran.code, 0, ran.err);
  const answer = JSON.parse(ran.out) as { bytes: number; word: string; name: string };
  assert.ok(answer.bytes > 0);
  assert.deepEqual([answer.word, answer.name], ['hello', 'default']);

  const second = await mayfly('run', '--image', 'deb', '--env', 'WORD=bye', '--', 'mine');
  assert.equal(second.code, 0, second.err);
  assert.match(second.out, /"word":"bye","name":"mine"/);
});

test('a program of the image runs on its read-only base, with mount points that the image did not have', async () => {
  const script = 'test -d /function && test -s /etc/machine-id && ! echo x > /usr/x && cat /etc/debian_version';
  const ran = await mayfly(
    'run',
    '--image',
    'deb',
    '--raw',
    '--program',
    '/bin/bash',
    '--',
    '-c',
    script.replace('cat ', '/bin/busybox cat '),
  );
  assert.equal(ran.code, 0, ran.err);
  assert.match(ran.out, /^\d+/);
});

test('an image needs a name, and a registry that is not there is told with a way out', async () => {
  assert.match((await mayfly('image', 'import', 'oci:layout:deb')).err, /--as NAME/);
  const pulled = await mayfly('image', 'import', 'docker://localhost:1/x:y', '--as', 'x');
  assert.equal(pulled.code, 3);
  assert.match(pulled.err, /E_IMAGE_FETCH[\s\S]*skopeo copy/);
});
