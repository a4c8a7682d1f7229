/**
 * `mayfly image build`: a directory, or what a Mayflyfile says of one, becomes an image, alone or as one more layer
 * above an image of the repository. Nothing of it is run and nothing of the base is read on this host.
 */
import { readFile } from 'node:fs/promises';
import { join, posix } from 'node:path';
import type { App } from './app.ts';
import type { AcceleratorMode } from './clone/accelerator.ts';
import { MayflyError } from './core/errors.ts';
import { canonicalJson, digestOf, parseStrict } from './core/json.ts';
import { limits } from './core/limits.ts';
import { gather, writeLayer } from './image/build/context.ts';
import type { BuildItems, Gathering } from './image/build/context.ts';
import { parseInstructions, refuserOf } from './image/build/file.ts';
import type { Refuse } from './image/build/file.ts';
import { foldersOf, parsePlaces, placeItems } from './image/build/place.ts';
import type { Place } from './image/build/place.ts';
import { baseOf, planBuild } from './image/build/plan.ts';
import type { BuildPlan } from './image/build/plan.ts';
import type { Envelope } from './image/envelope.ts';
import type { ImageCommand, ImageManifest } from './image/manifest.ts';
import { mergeLayers } from './image/oci/import.ts';
import type { Image } from './image/repository.ts';

export interface BuildOrder {
  /** Of the new image, which is tagged `NAME:latest`. */
  readonly name: string;
  /** Directory that files are copied from, absolute. */
  readonly context: string;
  /** The Mayflyfile and what it is called in messages. */
  readonly file: { readonly text: string; readonly name: string };
  readonly allowUnsigned: boolean;
  readonly accelerator: AcceleratorMode;
  readonly signal: AbortSignal;
  readonly say: (step: string) => void;
}

export interface BuiltImage {
  readonly envelope: Envelope;
  /** Of its own layer. */
  readonly entries: number;
  readonly bytes: number;
  readonly layerBytes: number;
  readonly notes: readonly string[];
  /** The tag named the same image before. */
  readonly unchanged: boolean;
}

/**
 * Rejects with E_BUILD_FILE and E_IMAGE_UNSUPPORTED (naming the line), E_IMAGE_UNKNOWN, _UNSAFE, _TOO_LARGE, E_USAGE,
 * E_INTERRUPTED, and what keeps a clone of the base from running.
 */
export async function buildImage(app: App, order: BuildOrder): Promise<BuiltImage> {
  const refuse = refuserOf(order.file.name);
  const instructions = parseInstructions(order.file.text, refuse);
  const reference = baseOf(instructions, refuse);
  const policy = { allowUnsigned: order.allowUnsigned };
  const base = reference === undefined ? undefined : await (await app.repository()).images.get(reference, policy);
  const plan = planBuild(instructions, startOf(base), refuse);
  const images = await app.images();
  return await images.inScratch(async (scratch) => {
    const { items, program } = await layOut(app, order, base, plan, refuse);
    const command = commandOf(base, plan, program);
    let made: { file: string; entries: number; bytes: number } | undefined;
    let diffId = digestOf('');
    if (items.size > 0 || base === undefined) {
      const layer = await writeLayer(items, join(scratch, 'layer.tar'), order.signal);
      diffId = layer.diffId;
      const { signal, say } = order;
      made = await mergeLayers([layer], { signal, say, scratch, above: base !== undefined });
    }
    const own = made === undefined ? undefined : await images.catalogue.addFileSystem(made.file, 'squashfs');
    const given = { file: order.file.text, base: base?.manifestDigest ?? null, layer: diffId };
    const inputs = digestOf(canonicalJson(given));
    const manifest = manifestOf(order, base, plan, { own, command, inputs, created: images.now() });
    const { envelope, unchanged } = await images.publishOnce(manifest, `${order.name}:latest`);
    return {
      envelope, unchanged, notes: plan.notes,
      entries: made?.entries ?? 0, bytes: made?.bytes ?? 0, layerBytes: own?.bytes ?? 0,
    };
  });
}

/** What the base gives to the file's instructions. */
function startOf(base: Image | undefined): { env: ReadonlyMap<string, string>; workingDir: string } {
  const { command, runtime } = base?.manifest ?? { command: null, runtime: null };
  const lines = [...(runtime?.env ?? []), ...(command?.env ?? [])];
  return { env: new Map(lines.map((line) => splitVariable(line))), workingDir: '/' };
}

function splitVariable(line: string): readonly [string, string] {
  const at = line.indexOf('=');
  return [line.slice(0, at), line.slice(at + 1)];
}

interface LaidOut {
  readonly items: BuildItems;
  /** Absolute path of the program that the file names; undefined when it names none. */
  readonly program: string | undefined;
}

async function layOut(
  app: App,
  order: BuildOrder,
  base: Image | undefined,
  plan: BuildPlan,
  refuse: Refuse,
): Promise<LaidOut> {
  const targets = plan.copies.map(({ target }) => target);
  const candidates = candidatesOf(plan, base);
  const first = await placesOf(app, order, base, [...targets, ...candidates]);
  const gathering: Gathering = {
    context: order.context, refuse, signal: order.signal, items: new Map(), bytes: 0,
  };
  if (plan.workingDir !== '/') gathering.items.set(plan.workingDir, { kind: 'folder', mode: 0o755 });
  for (const copy of plan.copies) await gather(gathering, copy, (path) => first.get(path)?.kind === 'folder');
  const { items } = gathering;
  const program = candidates.find((path) => {
    const item = items.get(path);
    if (item !== undefined) return item.kind === 'symlink' || (item.kind === 'file' && (item.mode & 0o111) !== 0);
    return first.get(path)?.kind === 'program';
  });
  if (program === undefined && candidates.length > 0) {
    throw refuse(plan.commandLine, `${wantedProgram(plan)} is no program of the image`);
  }
  const places = await placesOf(app, order, base, foldersOf(items));
  return { items: placeItems(items, places), program };
}

function wantedProgram({ entrypoint, cmd }: BuildPlan): string | undefined {
  return entrypoint?.[0] ?? cmd?.[0];
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Where the program may be, in this order; empty when the file names none. */
function candidatesOf(plan: BuildPlan, base: Image | undefined): string[] {
  const inherited = base?.manifest.command?.entrypoint ?? [];
  // Arguments for the base's own program.
  const wanted = plan.entrypoint === undefined && inherited.length > 0 ? undefined : wantedProgram(plan);
  if (wanted === undefined || wanted === '') return [];
  if (wanted.startsWith('/')) return [posix.normalize(wanted)];
  if (wanted.includes('/')) return [posix.join(plan.workingDir, wanted)];
  const path = plan.env.get('PATH') ?? startOf(base).env.get('PATH') ?? PATH;
  return path.split(':').filter((folder) => folder.startsWith('/')).map((folder) => posix.join(folder, wanted));
}

/** What a clone of the base says of these paths; without a base there is nothing yet. */
async function placesOf(
  app: App,
  { say, allowUnsigned, accelerator, signal }: BuildOrder,
  base: Image | undefined,
  paths: readonly string[],
): Promise<ReadonlyMap<string, Place>> {
  const wanted = [...new Set(paths)];
  if (base === undefined || wanted.length === 0) return new Map();
  say(`asking a clone of ${base.name} about ${wanted.length} paths`);
  const probe = await readFile((await (await app.repository()).probe()).path);
  const outcome = await app.run({
    image: base.manifestDigest, language: null, allowUnsigned, accelerator, signal, limits: {},
    event: Buffer.from('{}'),
    workload: {
      kind: 'executable', argv: ['/function/probe', 'paths'], raw: false,
      entries: [
        { kind: 'file', path: 'probe', mode: 0o755, content: probe },
        { kind: 'file', path: 'paths', mode: 0o644, content: Buffer.from(`${wanted.join('\n')}\n`) },
      ],
    },
  }, { progress: say });
  if (outcome.verdict.kind !== 'accepted') {
    const { code, message, remedy } = outcome.verdict;
    throw new MayflyError(code, `A clone of ${base.name} could not be asked: ${message}`, { remedy });
  }
  const parsed = parseStrict(outcome.output ?? Buffer.alloc(0), { bytesMax: limits.outputBytesMax, depthMax: 8 });
  const places = parsed.ok ? parsePlaces(parsed.value, wanted.length) : undefined;
  if (places === undefined) throw new MayflyError('E_CLONE_FAILED', `A clone of ${base.name} gave no usable answer.`);
  return new Map(places.map((place, index) => [wanted[index] ?? '', place]));
}

function commandOf(base: Image | undefined, plan: BuildPlan, program: string | undefined): ImageCommand | null {
  const before = base?.manifest.command ?? null;
  const entrypoint = plan.entrypoint ?? before?.entrypoint ?? [];
  const cmd = plan.cmd ?? before?.cmd ?? [];
  if (entrypoint.length + cmd.length === 0) return null;
  const env = merged(before?.env ?? [], plan.env);
  if (program === undefined) return { entrypoint, cmd, env };
  if (entrypoint.length > 0) return { entrypoint: [program, ...entrypoint.slice(1)], cmd, env };
  return { entrypoint, cmd: [program, ...cmd.slice(1)], env };
}

function merged(lines: readonly string[], set: ReadonlyMap<string, string>): string[] {
  const all = new Map([...lines.map((line) => splitVariable(line)), ...set]);
  return [...all].map(([name, value]) => `${name}=${value}`);
}

interface Parts extends Pick<ImageManifest, 'command' | 'inputs' | 'created'> {
  readonly own: ImageManifest['fileSystem'] | undefined;
}

function manifestOf(
  { name }: BuildOrder,
  base: Image | undefined,
  plan: BuildPlan,
  { own, command, inputs, created }: Parts,
): ImageManifest {
  const description = plan.description ?? `built from ${base === undefined ? 'a directory' : base.name}`;
  const common = { name, description, command, inputs, created, origin: 'build' as const };
  if (base !== undefined) {
    const { manifest } = base;
    const { runtime } = manifest;
    return {
      ...manifest, ...common,
      runtime: runtime === null ? null : { ...runtime, env: merged(runtime.env, plan.env) },
      layers: own === undefined ? manifest.layers : [...manifest.layers, own],
    };
  }
  if (own === undefined) throw new Error('build.ts: an image without a file system');
  return {
    manifestVersion: 1, ...common,
    classes: ['compute'], variant: 'standard', runtime: null,
    serves: { contentTypes: [], eventTypes: [] },
    policy: { seccomp: 'compute', appArmor: 'compute' },
    kernel: { minimum: '6.1' },
    platform: { os: 'linux', architecture: 'amd64' },
    fileSystem: own, layers: [], packages: [],
  };
}
