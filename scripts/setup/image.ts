/**
 * Base images: read-only erofs file systems put together from packages of the distribution. No package's scripts run,
 * no file belongs to anybody but root, nothing is set-uid, and the same packages give the same bytes.
 */
import { chmod, copyFile, lstat, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { IMAGE_PREFIX } from '../../src/image/repository.ts';
import { unpack } from './apt.ts';
import type { Apt } from './apt.ts';
import { attempt, run } from './command.ts';
import { RECIPES } from './recipe.ts';
import type { Recipe } from './recipe.ts';
import { inputsOf } from './workshop.ts';
import type { Say, Step, Workshop } from './workshop.ts';

/** Uid and gid of the workload: docs/FORMATS.md, profile/generate.ts. */
const WORKLOAD_ID = 1000;

/** Identifier of every image's file system: it identifies nothing, and a random one would change the digest. */
const UUID = '00000000-0000-4000-8000-000000000000';

const EXCLUDE = [
  './usr/share/doc', './usr/share/man', './usr/share/info', './usr/share/locale', './usr/share/lintian',
  './usr/share/bug', './usr/share/applications', './usr/share/pixmaps', './usr/share/doc-base', './usr/share/bash-completion',
  './etc/init.d', './etc/cron*', './etc/logrotate.d', './usr/lib/systemd', './lib/systemd', './var/*',
  './usr/lib/x86_64-linux-gnu/gconv', './usr/lib/x86_64-linux-gnu/perl*',
];

export function imageStep(recipe: Recipe, apt: Apt): Step {
  const name = IMAGE_PREFIX + recipe.name;
  return {
    name,
    title: `Base image ${recipe.name}`,
    makes: [name],
    async inputs({ root, nodeBinary }) {
      const node = recipe.add.includes('node') ? { version: process.version, bytes: (await stat(nodeBinary)).size } : null;
      const shims = await shimSources(root, recipe);
      return await inputsOf(root, { node }, ['scripts/setup/image.ts', `${RECIPES}/${recipe.name}.json`, ...shims]);
    },
    async build(workshop, inputs, say) {
      const { scratch, signal, store, now } = workshop;
      const folder = join(scratch, recipe.name);
      const names = await apt.closure(recipe.packages, recipe.without, say);
      const packages = await apt.fetch(names, say);
      await layOut(folder);
      for (const deb of packages) {
        say(`unpacking ${deb.name}`);
        await unpack(deb, folder, [...EXCLUDE, ...recipe.exclude], signal);
      }
      await writeIdentity(folder);
      await linkApplets(folder, signal);
      await bundleCertificates(folder);
      await installShims(workshop, recipe, folder);
      if (recipe.add.includes('node')) await addNode(workshop, folder, say);
      if (recipe.add.includes('bytecode')) await compileBytecode(workshop, folder, say);
      await dropPrivileges(folder);

      say('packing');
      const file = join(scratch, `${recipe.name}.erofs`);
      await run(['mkfs.erofs', '-T0', `-U${UUID}`, '--all-root', '-x-1', file, folder], { signal });
      const meta = {
        description: recipe.description,
        runtime: recipe.runtime,
        packages: packages.map((deb) => `${deb.name}=${deb.version}`),
        node: recipe.add.includes('node') ? process.version : null,
      };
      await store.put({ name, file, inputs, madeAt: now(), meta });
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Folders of a merged-/usr system, and those that the agent mounts on. */
async function layOut(folder: string): Promise<void> {
  const folders = [
    'usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64', 'usr/lib/mayfly', 'etc', 'root',
    'proc', 'sys', 'dev', 'tmp', 'run', 'function', 'var/tmp',
  ];
  for (const path of folders) await mkdir(join(folder, path), { recursive: true, mode: 0o755 });
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) await symlink(`usr/${name}`, join(folder, name));
  for (const name of ['tmp', 'var/tmp']) await chmod(join(folder, name), 0o1777);
}

/** /etc as far as programs ask for it. The agent mounts a clone's own machine-id over the empty one. */
async function writeIdentity(folder: string): Promise<void> {
  const id = String(WORKLOAD_ID);
  const files: Readonly<Record<string, string>> = {
    passwd: `root:x:0:0:root:/root:/bin/sh\nfunction:x:${id}:${id}:function:/tmp:/bin/sh\n`,
    group: `root:x:0:\nfunction:x:${id}:\n`,
    hosts: '127.0.0.1 localhost\n::1 localhost\n',
    'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
    'resolv.conf': 'nameserver 127.0.0.1\n',
    'machine-id': '',
  };
  for (const [name, text] of Object.entries(files)) {
    await rm(join(folder, 'etc', name), { force: true });
    await writeFile(join(folder, 'etc', name), text, { mode: 0o644 });
  }
}

async function linkApplets(folder: string, signal: AbortSignal): Promise<void> {
  const busybox = join(folder, 'usr/bin/busybox');
  for (const applet of (await run([busybox, '--list'], { signal })).split('\n')) {
    const path = join(folder, 'usr/bin', applet);
    if (applet === '' || (await lstat(path).catch(() => undefined)) !== undefined) continue;
    await symlink('busybox', path);
  }
}

/** What ca-certificates' own script would do: one file with all of them, where OpenSSL looks for it. */
async function bundleCertificates(folder: string): Promise<void> {
  const source = join(folder, 'usr/share/ca-certificates/mozilla');
  const names = await readdir(source).catch(() => []);
  if (names.length === 0) return;
  const texts = await Promise.all(names.sort().map((name) => readFile(join(source, name), 'utf8')));
  await mkdir(join(folder, 'etc/ssl/certs'), { recursive: true });
  await writeFile(join(folder, 'etc/ssl/certs/ca-certificates.crt'), texts.join(''), { mode: 0o644 });
  await mkdir(join(folder, 'usr/lib/ssl'), { recursive: true });
  await symlink('/etc/ssl/certs/ca-certificates.crt', join(folder, 'usr/lib/ssl/cert.pem'));
}

const RUNTIME = 'guest/runtime';
/** Native part of the Node shim: renews the randomness that a template's process carries. */
const RENEW = `${RUNTIME}/node/renew.c`;

async function shimSources(root: string, recipe: Recipe): Promise<string[]> {
  const shims = recipe.shim.map((file) => `${RUNTIME}/${file}`);
  return recipe.add.includes('node') && (await exists(join(root, RENEW))) ? [...shims, RENEW] : shims;
}

async function installShims({ root }: Workshop, recipe: Recipe, folder: string): Promise<void> {
  for (const file of recipe.shim) {
    const name = file.slice(file.lastIndexOf('/') + 1);
    const target = join(folder, 'usr/lib/mayfly', name);
    await copyFile(join(root, RUNTIME, file), target);
    await chmod(target, 0o444);
  }
}

async function addNode({ root, nodeBinary, signal }: Workshop, folder: string, say: Say): Promise<void> {
  say(`adding Node ${process.version}`);
  const node = join(folder, 'usr/bin/node');
  await run(['strip', '-o', node, nodeBinary], { signal });
  await chmod(node, 0o755);
  if (!(await exists(join(root, RENEW)))) return;
  const addon = join(folder, 'usr/lib/mayfly/renew.node');
  await run(
    [
      'gcc', '-shared', '-fPIC', '-O2', '-s', '-std=gnu11', '-Wall', '-Wextra', '-Werror', `-ffile-prefix-map=${root}=.`,
      '-Wl,--build-id=none', '-Wl,-z,relro', '-Wl,-z,now', '-o', addon, RENEW,
    ],
    { cwd: root, signal },
  );
  await chmod(addon, 0o444);
}

/** Bytecode that Python believes without looking at the source: the image never changes, and imports cost half. */
async function compileBytecode({ signal }: Workshop, folder: string, say: Say): Promise<void> {
  say('compiling Python modules');
  const lib = join(folder, 'usr/lib/x86_64-linux-gnu');
  // The image's own Python, with the image's own libraries: the host may have another one or none.
  const python = [join(folder, 'lib64/ld-linux-x86-64.so.2'), '--library-path', lib, join(folder, 'usr/bin/python3')];
  const env = { PYTHONHOME: join(folder, 'usr'), PYTHONHASHSEED: '0', SOURCE_DATE_EPOCH: '0' };
  const flags = ['-q', '-j1', '--invalidation-mode', 'unchecked-hash', '-s', folder, '-p', '/'];
  const libraries = (await readdir(join(folder, 'usr/lib'))).filter((name) => /^python3/.test(name));
  const targets = [...libraries, 'mayfly'].map((name) => join(folder, 'usr/lib', name));
  await attempt([...python, '-S', '-m', 'compileall', ...flags, ...targets], { env, signal });
}

/** Set-uid programs have no place where a function starts with no privileges and must not gain any. */
async function dropPrivileges(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const { mode } = await stat(path);
    if ((mode & 0o6000) !== 0) await chmod(path, mode & 0o777);
  }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
