/**
 * Base images: read-only erofs file systems put together from packages of the distribution. No package's scripts run,
 * no file belongs to anybody but root, nothing is set-uid, and the same packages give the same bytes.
 */
import {
  chmod, copyFile, lstat, mkdir, readdir, readFile, readlink, rm, stat, symlink, writeFile,
} from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { IMAGE_PREFIX } from '../../src/image/repository.ts';
import { unpack } from './apt.ts';
import type { Apt } from './apt.ts';
import { run } from './command.ts';
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
  './usr/share/bug', './usr/share/applications', './usr/share/pixmaps', './usr/share/doc-base',
  './usr/share/bash-completion', './usr/share/binfmts', './usr/share/initramfs-tools', './usr/lib/valgrind',
  './etc/init.d', './etc/cron*', './etc/logrotate.d', './usr/lib/systemd', './lib/systemd', './var/*',
  './usr/lib/x86_64-linux-gnu/gconv', './usr/lib/x86_64-linux-gnu/perl*',
];

export function imageStep(recipe: Recipe, apt: Apt): Step {
  const name = IMAGE_PREFIX + recipe.name;
  return {
    name,
    title: `Base image ${recipe.name}`,
    makes: [name],
    async inputs(workshop) {
      const { root, nodeBinary } = workshop;
      const bytes = (await stat(nodeBinary)).size;
      const node = recipe.add.includes('node') ? { version: await nodeVersion(workshop), bytes } : null;
      const shims = await shimSources(root, recipe);
      const links: string[] = [];
      const files: string[] = [];
      for (const { path, target } of await ownFiles(root, recipe)) {
        if (target === null) files.push(join(OWN_FILES, recipe.name, path));
        else links.push(`${path} -> ${target}`);
      }
      const sources = ['scripts/setup/image.ts', `${RECIPES}/${recipe.name}.json`, ...shims, ...files];
      return await inputsOf(root, links.length === 0 ? { node } : { node, links }, sources);
    },
    async build(workshop, inputs, say) {
      const { root, scratch, signal, store, now } = workshop;
      const folder = join(scratch, recipe.name);
      const names = await apt.closure(recipe.packages, recipe.without, say);
      const packages = await apt.fetch(names, say);
      await layOut(folder);
      say(`unpacking ${packages.length} packages`);
      for (const deb of packages) await unpack(deb, folder, [...EXCLUDE, ...recipe.exclude], signal);
      await writeIdentity(folder);
      await linkApplets(folder, signal);
      await bundleCertificates(folder);
      await installShim(workshop, recipe, folder);
      await installOwnFiles(root, recipe, folder);
      if (recipe.add.includes('node')) await addNode(workshop, folder, say);
      if (recipe.add.includes('bytecode')) await compileBytecode(workshop, folder, say);
      await dropPrivileges(folder);

      say('packing');
      const file = join(scratch, `${recipe.name}.erofs`);
      await run(['mkfs.erofs', '-T0', `-U${UUID}`, '--all-root', '-x-1', file, folder], { signal });
      const meta = {
        description: recipe.description,
        runtime: recipe.runtime,
        packages: [
          ...packages.map((deb) => `${deb.name}=${deb.version}`),
          ...(recipe.add.includes('node') ? [`node=${await nodeVersion(workshop)}`] : []),
        ],
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

/** Configuration and links of an image beyond its packages, under the image's name as they stand in it. */
const OWN_FILES = `${RECIPES}/files`;

interface OwnFile {
  /** Relative to the image's root. */
  readonly path: string;
  /** Of a symbolic link; null for a file. */
  readonly target: string | null;
}

async function ownFiles(root: string, { name }: Recipe): Promise<OwnFile[]> {
  const folder = join(root, OWN_FILES, name);
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const found: OwnFile[] = [];
  for (const entry of entries) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    found.push({ path: relative(folder, path), target: entry.isSymbolicLink() ? await readlink(path) : null });
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function installOwnFiles(root: string, recipe: Recipe, folder: string): Promise<void> {
  for (const { path, target } of await ownFiles(root, recipe)) {
    const to = join(folder, path);
    await mkdir(dirname(to), { recursive: true, mode: 0o755 });
    await rm(to, { force: true });
    if (target !== null) await symlink(target, to);
    else await copyFile(join(root, OWN_FILES, recipe.name, path), to);
    if (target === null) await chmod(to, 0o444);
  }
}

const RUNTIME = 'guest/runtime';

/** The shim's files, relative to the checkout. */
async function shimSources(root: string, { shim }: Recipe): Promise<string[]> {
  if (shim === null) return [];
  const entries = await readdir(join(root, RUNTIME, shim), { withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && !entry.name.startsWith('.'));
  return files.map(({ name }) => join(RUNTIME, shim, name)).sort();
}

/** C sources are the native part of the Node shim: it renews the randomness that a template's process carries. */
async function installShim({ root, signal }: Workshop, recipe: Recipe, folder: string): Promise<void> {
  for (const source of await shimSources(root, recipe)) {
    const target = join(folder, 'usr/lib/mayfly', basename(source).replace(/\.c$/, '.node'));
    if (source.endsWith('.c')) await run(['gcc', ...ADDON_FLAGS, '-o', target, source], { cwd: root, signal });
    else await copyFile(join(root, source), target);
    await chmod(target, 0o444);
  }
}

const ADDON_FLAGS = [
  '-shared', '-fPIC', '-O2', '-s', '-std=gnu11', '-Wall', '-Wextra', '-Werror',
  '-Wl,--build-id=none', '-Wl,-z,relro', '-Wl,-z,now',
];

async function nodeVersion({ nodeBinary, signal }: Workshop): Promise<string> {
  return (await run([nodeBinary, '--version'], { signal })).trim();
}

async function addNode({ nodeBinary, signal }: Workshop, folder: string, say: Say): Promise<void> {
  say('adding Node');
  const node = join(folder, 'usr/bin/node');
  await run(['strip', '-o', node, nodeBinary], { signal });
  await chmod(node, 0o755);
}

/** Bytecode that Python believes without looking at the source: the image never changes, and imports cost half. */
async function compileBytecode({ signal }: Workshop, folder: string, say: Say): Promise<void> {
  say('compiling Python modules');
  const lib = join(folder, 'usr/lib/x86_64-linux-gnu');
  // The image's own Python, with the image's own libraries: the host may have another one or none.
  const python = [join(folder, 'lib64/ld-linux-x86-64.so.2'), '--library-path', lib, join(folder, 'usr/bin/python3')];
  const env = { PYTHONHOME: join(folder, 'usr'), PYTHONHASHSEED: '0', SOURCE_DATE_EPOCH: '0' };
  const flags = ['-q', '-f', '-j1', '--invalidation-mode', 'unchecked-hash', '-s', folder, '-p', '/'];
  const libraries = (await readdir(join(folder, 'usr/lib'))).filter((name) => /^python3/.test(name));
  const targets = [...libraries, 'mayfly'].map((name) => join(folder, 'usr/lib', name));
  // -B: what the compiler itself imports would otherwise be compiled first, with this machine's paths in it.
  await run([...python, '-B', '-S', '-m', 'compileall', ...flags, ...targets], { env, signal });
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
