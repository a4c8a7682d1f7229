/**
 * The guest's kernel and its modules, out of the distribution's cloud kernel package: signed, maintained, small, and
 * never installed on the host.
 */
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { MayflyError } from '../../src/core/errors.ts';
import { unpack } from './apt.ts';
import type { Apt } from './apt.ts';
import { run } from './command.ts';
import { writeCpio } from './cpio.ts';
import type { CpioEntry } from './cpio.ts';
import { bootModules, dependenciesOf, loadOrder, networkModules } from './modules.ts';
import { inputsOf } from './workshop.ts';
import type { Step, Workshop } from './workshop.ts';

/** Depends on the package of the current kernel and contains nothing itself. */
const META_PACKAGE = 'linux-image-cloud-amd64';

const SOURCES = ['scripts/setup/kernel.ts', 'scripts/setup/modules.ts', 'scripts/setup/cpio.ts'];

export function kernelStep(apt: Apt): Step {
  return {
    name: 'kernel',
    title: 'Guest kernel',
    makes: ['kernel', 'modules'],
    inputs: ({ root }) => inputsOf(root, { package: META_PACKAGE }, SOURCES),
    async build(workshop, inputs, say) {
      const { store, scratch, signal } = workshop;
      const closure = await apt.closure([META_PACKAGE], [], say);
      const name = closure.find((candidate) => /^linux-image-[0-9].*-cloud-amd64$/.test(candidate));
      if (name === undefined) throw new MayflyError('E_SETUP_MISSING', `${META_PACKAGE} names no kernel`);
      const [deb] = await apt.fetch([name], say);
      if (deb === undefined) throw new MayflyError('E_SETUP_MISSING', `apt has no file for ${name}`);
      const release = name.slice('linux-image-'.length);

      say(`unpacking Linux ${release}`);
      const folder = join(scratch, 'kernel');
      await mkdir(folder);
      await unpack(deb, folder, ['./usr/share/*', './boot/System.map*', './boot/config*'], signal);
      const modules = join(scratch, 'modules.cpio');
      await writeFile(modules, await packModules(workshop, folder));

      const meta = { release, package: `${deb.name}=${deb.version}` };
      const made = { inputs, madeAt: workshop.now(), meta };
      await store.put({ name: 'modules', file: modules, ...made });
      const kernel = join(scratch, 'vmlinuz');
      await rename(join(folder, 'boot', `vmlinuz-${release}`), kernel);
      await store.put({ name: 'kernel', file: kernel, ...made });
    },
  };
}

/** `/modules`: the files, and two lists of names in the order in which the agent loads them. */
async function packModules(workshop: Workshop, folder: string): Promise<Buffer> {
  const files = await moduleFiles(folder);
  const contents = new Map<string, Buffer>();
  for (const name of await closeModules([...bootModules, ...networkModules], files, contents, workshop.signal)) {
    if (!contents.has(name)) throw new Error(`kernel module ${name} was not read`);
  }
  const needs = (name: string): readonly string[] => dependenciesOf(contents.get(name) ?? Buffer.alloc(0));
  const boot = loadOrder(bootModules, needs);
  const network = loadOrder(networkModules, needs).filter((name) => !boot.includes(name));
  const list = (names: readonly string[]): Buffer => Buffer.from(names.map((name) => `${name}.ko\n`).join(''));
  const entries: CpioEntry[] = [
    { kind: 'folder', path: 'modules' },
    { kind: 'file', path: 'modules/load-order', mode: 0o444, content: list(boot) },
    { kind: 'file', path: 'modules/load-order.net', mode: 0o444, content: list(network) },
  ];
  for (const name of [...boot, ...network]) {
    const content = contents.get(name) ?? Buffer.alloc(0);
    entries.push({ kind: 'file', path: `modules/${name}.ko`, mode: 0o444, content });
  }
  return writeCpio(entries);
}

/** Reads the wanted modules and what they need into `contents`; resolves to all their names. */
async function closeModules(
  wanted: readonly string[],
  files: ReadonlyMap<string, string>,
  contents: Map<string, Buffer>,
  signal: AbortSignal,
): Promise<string[]> {
  const waiting = [...wanted];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (contents.has(name)) continue;
    const file = files.get(name);
    if (file === undefined) throw new MayflyError('E_SETUP_MISSING', `The kernel package has no module ${name}.`);
    // Debian 13 compresses its modules; the agent loads plain ones.
    if (file.endsWith('.xz')) await run(['xz', '--decompress', '--keep', file], { signal });
    const content = await readFile(file.replace(/\.xz$/, ''));
    contents.set(name, content);
    waiting.push(...dependenciesOf(content));
  }
  return [...contents.keys()];
}

/** Module name to file. Names use `_` where files may have `-`. */
async function moduleFiles(folder: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const name = /^(.+)\.ko(\.xz)?$/.exec(basename(entry.name))?.[1];
    if (name !== undefined && entry.isFile()) files.set(name.replaceAll('-', '_'), join(entry.parentPath, entry.name));
  }
  return files;
}
