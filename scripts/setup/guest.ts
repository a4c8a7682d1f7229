/**
 * What is compiled for the guest: the agent (PID 1 of every clone), the initial RAM file system that carries it and the
 * kernel's modules, and the probe with which images are checked.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../../src/core/errors.ts';
import { run } from './command.ts';
import { writeCpio } from './cpio.ts';
import { inputsOf, need } from './workshop.ts';
import type { Step, Workshop } from './workshop.ts';

const AGENT = 'guest/agent';
const PROBE = 'guest/probe';

/** Static, hardened, and the same bytes wherever it is compiled. */
const FLAGS = [
  '-std=c11', '-Os', '-static', '-s',
  '-Wall', '-Wextra', '-Werror', '-Wshadow', '-Wformat=2', '-Wvla',
  '-fstack-protector-strong', '-D_FORTIFY_SOURCE=2', '-fno-strict-aliasing',
  '-ffunction-sections', '-fdata-sections',
  '-Wl,--gc-sections', '-Wl,--build-id=none', '-Wl,-z,relro', '-Wl,-z,now', '-Wl,-z,noexecstack',
];

/** A static program of one folder of C sources. */
function programStep(name: string, title: string, folder: string): Step {
  return {
    name,
    title,
    makes: [name],
    async inputs({ root }) {
      return await inputsOf(root, { flags: FLAGS }, ['scripts/setup/guest.ts', folder]);
    },
    async build({ root, store, scratch, signal, now }, inputs, say) {
      const sources = (await readdir(join(root, folder))).filter((file) => file.endsWith('.c')).sort();
      if (sources.length === 0) throw new MayflyError('E_SETUP_MISSING', `There are no sources in ${folder}.`);
      say(`compiling ${sources.length} files with musl-gcc`);
      const file = join(scratch, name);
      const map = `-ffile-prefix-map=${root}=.`;
      const env = { SOURCE_DATE_EPOCH: '0', TMPDIR: scratch };
      await run(['musl-gcc', ...FLAGS, map, '-o', file, ...sources], { cwd: join(root, folder), env, signal });
      const [compiler = ''] = (await run(['gcc', '--version'], { signal })).split('\n');
      await store.put({ name, file, inputs, madeAt: now(), meta: { compiler } });
    },
  };
}

export const agentStep = programStep('agent', 'Guest agent', AGENT);
/** For `mayfly image check`. */
export const probeStep = programStep('probe', 'Conformance probe', PROBE);

export const initramfsStep: Step = {
  name: 'initramfs',
  title: 'Initial RAM file system',
  makes: ['initramfs'],
  async inputs(workshop) {
    const parts = { agent: await digestOrNone(workshop, 'agent'), modules: await digestOrNone(workshop, 'modules') };
    return await inputsOf(workshop.root, parts, ['scripts/setup/guest.ts', 'scripts/setup/cpio.ts']);
  },
  async build(workshop, inputs, say) {
    const agent = await need(workshop, 'agent');
    const modules = await need(workshop, 'modules');
    say('packing');
    const folders = ['dev', 'image', 'overlay', 'proc', 'sys'].map((path) => ({ kind: 'folder', path }) as const);
    const init = { kind: 'file', path: 'init', mode: 0o555, content: await readFile(agent.path) } as const;
    // The kernel unpacks archives that follow one another, so the modules keep the bytes they were packed with.
    const content = Buffer.concat([writeCpio([...folders, init]), await readFile(modules.path)]);
    const file = join(workshop.scratch, 'initramfs');
    await mkdir(workshop.scratch, { recursive: true });
    await writeFile(file, content);
    const meta = { agent: agent.digest, kernel: modules.meta.release };
    await workshop.store.put({ name: 'initramfs', file, inputs, madeAt: workshop.now(), meta });
  },
};

async function digestOrNone(workshop: Workshop, name: string): Promise<string | null> {
  return (await workshop.store.find(name))?.digest ?? null;
}
