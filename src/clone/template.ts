/**
 * Templates: warm machines at rest that clones are made from. One per image, RAM shape and everything else that a saved
 * state depends on; built when first asked for, found again by key, never written after it was sealed.
 *
 * `MAYFLY_HOME/templates/KEY/` holds `ram`, `state`, `features` and `template.json`. The folder is built under another
 * name and renamed when complete, so a template is whole or absent; `KEY.lock` lets one process build it at a time. It
 * is trusted only while its RAM file is the very file that was sealed: size, inode, mtime and ctime are compared
 * before and after every clone, because QEMU before 8.2 must be able to open it for writing. The device state is small
 * and carries its SHA-256.
 */
import { mkdir, readdir, readFile, rename, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { createDisk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { fingerprint, writeDurably } from '../core/files.ts';
import type { Fingerprint } from '../core/files.ts';
import { canonicalJson, digestOf } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { prepareTemplate } from '../bridge/session.ts';
import { templatePolicyText } from '../profile/apparmor.ts';
import type { CompilePolicy } from './policy.ts';
import { isoTime } from '../core/time.ts';
import type { Clock } from '../core/time.ts';
import type { TemplateState, Vmm } from './vmm/contract.ts';
import { discard, listStock, markUsed, overBudget } from './stock.ts';
import { machineVersion } from './vmm/machine.ts';

/** A file of the image repository: absolute path and `sha256:` digest. */
export interface Artefact {
  readonly path: string;
  readonly digest: string;
}

export interface TemplateImage extends Artefact {
  readonly name: string;
  /** File systems above its own, the lowest first. */
  readonly layers: readonly Artefact[];
  /** Language runtime to start and warm in the template; null when the image only runs executables. */
  readonly runtime: { readonly argv: readonly string[]; readonly env: readonly string[] } | null;
}

export interface Template {
  readonly key: string;
  readonly state: TemplateState;
  /** A language runtime waits inside. */
  readonly warm: boolean;
  /** Throws E_TEMPLATE_TAMPERED, and discards the template, unless its files are as they were sealed. */
  check(): Promise<void>;
  /** The text, compiled for the kernel that runs in it. Rejects with E_POLICY_COMPILE. */
  compile(text: string): Promise<Buffer>;
}

/** Nobody writes to a part of a template again. */
const SEALED_MODE = 0o400;

export interface TemplateOptions {
  /** MAYFLY_HOME. */
  readonly home: string;
  readonly kernel: Artefact;
  readonly initramfs: Artefact;
  readonly vmm: Vmm;
  readonly clock: Clock;
  readonly compile: CompilePolicy;
  /** Uid and gid of the workload in the guest. */
  readonly workloadId: number;
  /** Tells this process from others that build the same template at the same time. */
  readonly builder: string;
  readonly alive: (builder: string) => Promise<boolean>;
  /** Disk space of all templates together, bytes; when a new one does not fit, the least recently used ones go. */
  readonly bytesMax?: number;
}

export interface Templates {
  /**
   * The template of an image, built first when there is none. Rejects with E_TEMPLATE_BUILD, also when the signal of
   * whoever asked first ends the build, E_DISK_SPACE or E_TEMPLATE_TAMPERED.
   */
  get(image: TemplateImage, ramBytes: number, watch?: BuildWatch): Promise<Template>;
}

export interface BuildWatch {
  /** Hears what takes seconds. */
  readonly onBuild?: (step: string) => void;
  readonly signal?: AbortSignal;
}

interface Seal {
  readonly templateVersion: 2;
  readonly image: string;
  /** Digest of the file system that clones boot from: garbage collection keeps it. */
  readonly baseImage: string;
  /** Digests of those above it, kept as well; absent when there are none. */
  readonly layers?: readonly string[];
  readonly ramBytes: number;
  readonly warm: boolean;
  readonly stateDigest: string;
  /** Of what the guest's kernel can enforce, as AppArmor's features. */
  readonly featuresDigest: string;
  readonly ram: Fingerprint;
}

export function openTemplates(options: TemplateOptions): Templates {
  const root = join(options.home, 'templates');
  const known = new Map<string, Promise<Template>>();
  return {
    get(image, ramBytes, watch = {}) {
      const key = templateKey(options, image, ramBytes);
      const before = known.get(key);
      const wanted = (async (): Promise<Template> => {
        const remembered = await before;
        // Another process may have taken it away, for the budget's sake.
        const isHere = remembered !== undefined && (await found(remembered.state.ram)) !== undefined;
        const there = isHere ? remembered : await loadTemplate(options, join(root, key), image, ramBytes);
        const template = there ?? (await buildOnce(options, root, key, image, ramBytes, watch));
        await markUsed(join(root, key), wallMillis(options));
        return template;
      })();
      known.set(key, wanted);
      wanted.catch(() => {
        if (known.get(key) === wanted) known.delete(key);
      });
      return wanted;
    },
  };
}

function wallMillis({ clock }: TemplateOptions): number {
  return Number(clock.wallNanos() / 1_000_000n);
}

/** What a template is made with, beside its image. */
export interface TemplateMaker extends Pick<TemplateOptions, 'kernel' | 'initramfs' | 'workloadId'> {
  readonly vmm: Pick<Vmm, 'version' | 'isolation'>;
}

/** Everything that a saved state depends on; a change in any of it makes another template. */
export function templateKey(
  options: TemplateMaker,
  image: Omit<TemplateImage, 'path' | 'layers'> & { readonly layers: readonly Pick<Artefact, 'digest'>[] },
  ramBytes: number,
): string {
  const { kernel, initramfs, vmm } = options;
  const inputs = canonicalJson({
    machineVersion, ramBytes,
    kernel: kernel.digest, initramfs: initramfs.digest, image: image.digest,
    ...(image.layers.length === 0 ? {} : { layers: image.layers.map(({ digest }) => digest) }),
    runtime: image.runtime === null ? null : { argv: [...image.runtime.argv], env: [...image.runtime.env] },
    vmm: vmm.version, isolation: vmm.isolation, workloadId: options.workloadId,
  });
  return `${image.name}-${digestOf(inputs).slice('sha256:'.length).slice(0, 32)}`;
}

async function loadTemplate(
  options: TemplateOptions,
  folder: string,
  image: TemplateImage,
  ramBytes: number,
): Promise<Template | undefined> {
  let seal: Seal;
  let state: Buffer;
  let features: string;
  try {
    seal = JSON.parse(await readFile(join(folder, 'template.json'), 'utf8')) as Seal;
    state = await readFile(join(folder, 'state'));
    features = await readFile(join(folder, 'features'), 'utf8');
  } catch {
    return undefined;
  }
  const intact = seal.stateDigest === digestOf(state) && seal.featuresDigest === digestOf(features);
  if (seal.templateVersion !== 2 || !intact || !sameFile(seal.ram, await found(join(folder, 'ram')))) {
    // At rest this is a copied, restored or damaged folder rather than an attack: building anew is always right.
    await rm(folder, { recursive: true, force: true });
    return undefined;
  }
  return template(options, folder, image, ramBytes, seal, state, features);
}

/** One builder for each key on this machine: whoever comes second waits, and finds the template that the first made. */
async function buildOnce(
  options: TemplateOptions,
  root: string,
  key: string,
  image: TemplateImage,
  ramBytes: number,
  watch: BuildWatch,
): Promise<Template> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  const unlock = await awaitTurn(options.clock, join(root, `${key}.lock`), image.name, watch);
  try {
    const others = await loadTemplate(options, join(root, key), image, ramBytes);
    return others ?? (await buildTemplate(options, root, key, image, ramBytes, watch));
  } finally {
    await unlock();
  }
}

/** Resolves to the release of the lock. The kernel gives it on when a builder dies. */
async function awaitTurn(
  clock: Clock,
  lock: string,
  name: string,
  { onBuild, signal }: BuildWatch,
): Promise<() => Promise<void>> {
  const started = clock.now();
  for (let round = 0; clock.now() - started < limits.templateWaitMillisMax; round++) {
    if (signal?.aborted === true) throw new MayflyError('E_INTERRUPTED', 'The wait for a template was interrupted.');
    if (round === 1) onBuild?.(`waiting for another process that builds the ${name} template`);
    try {
      return await createDisk().lock(lock, limits.templateWaitStepMillis);
    } catch (thrown) {
      if (!(thrown instanceof Error && 'code' in thrown && thrown.code === 'EAGAIN')) throw thrown;
    }
  }
  const waited = Math.round((clock.now() - started) / 1000);
  throw new MayflyError('E_TEMPLATE_BUILD', `another process has been building the ${name} template for ${waited} s`, {
    remedy: 'End the process that holds the lock file named below, or run the command again.',
    detail: lock,
  });
}

async function buildTemplate(
  options: TemplateOptions,
  root: string,
  key: string,
  image: TemplateImage,
  ramBytes: number,
  { onBuild = () => {}, signal }: BuildWatch,
): Promise<Template> {
  const folder = join(root, key);
  const building = join(root, `building-${options.builder}-${key}`);
  await removeAbandoned(root, options);
  await requireSpace(root, ramBytes);
  await rm(building, { recursive: true, force: true });
  await mkdir(building, { mode: 0o700 });
  try {
    onBuild(`booting a ${image.name} template (once; seconds)`);
    let warm = false;
    let features = '';
    const spec = {
      folder: building,
      kernel: options.kernel.path,
      initramfs: options.initramfs.path,
      baseImage: image.path,
      layers: image.layers.map(({ path }) => path),
      ramBytes,
    };
    const saved = await options.vmm.buildTemplate(spec, async (transport: Duplex) => {
      const stop = (): void => void transport.destroy();
      signal?.addEventListener('abort', stop, { once: true });
      if (signal?.aborted === true) stop();
      const prepared = await prepareTemplate({
        transport,
        clock: options.clock,
        prepare: {
          argv: image.runtime?.argv ?? [],
          env: image.runtime?.env ?? [],
          uid: options.workloadId,
          gid: options.workloadId,
          scratchBytes: limits.scratchBytesDefault,
        },
        policy: (found) => options.compile(templatePolicyText, found),
      }).finally(() => signal?.removeEventListener('abort', stop));
      warm = prepared.warm;
      features = prepared.hello.policyFeatures;
    });
    onBuild(`sealing the ${image.name} template`);
    await writeDurably(join(building, 'state'), saved.state, SEALED_MODE);
    await writeDurably(join(building, 'features'), features, SEALED_MODE);
    const seal: Seal = {
      templateVersion: 2,
      image: image.name,
      baseImage: image.digest,
      ...(image.layers.length === 0 ? {} : { layers: image.layers.map(({ digest }) => digest) }),
      ramBytes,
      warm,
      stateDigest: digestOf(saved.state),
      featuresDigest: digestOf(features),
      ram: await requireFingerprint(join(building, 'ram')),
    };
    await writeDurably(join(building, 'template.json'), `${JSON.stringify(seal, null, 2)}\n`, SEALED_MODE);
    // What is there could not be loaded, as when somebody removed half of it; nobody else builds meanwhile.
    await rm(folder, { recursive: true, force: true });
    await rename(building, folder);
  } catch (thrown) {
    await rm(building, { recursive: true, force: true });
    throw thrown;
  }
  const built = await loadTemplate(options, folder, image, ramBytes);
  const budget = { bytesMax: options.bytesMax ?? limits.templatesBytesMax, now: wallMillis(options), keep: key };
  for (const gone of await discard(root, overBudget(await listStock(root), budget))) {
    onBuild(`removed the ${gone.image} template that was used longest ago`);
  }
  if (built === undefined) throw new MayflyError('E_TEMPLATE_BUILD', `the template ${key} did not survive its sealing`);
  return built;
}

function template(
  options: TemplateOptions,
  folder: string,
  image: TemplateImage,
  ramBytes: number,
  seal: Seal,
  state: Buffer,
  features: string,
): Template {
  const ram = join(folder, 'ram');
  const layers = image.layers.map(({ path }) => path);
  const spec = { kernel: options.kernel.path, initramfs: options.initramfs.path, baseImage: image.path, layers };
  return {
    key: folder.slice(folder.lastIndexOf('/') + 1),
    warm: seal.warm,
    compile: (text) => options.compile(text, features),
    state: { folder, ...spec, ramBytes, ram, state },
    async check() {
      const now = await found(ram);
      if (sameFile(seal.ram, now)) return;
      await rm(folder, { recursive: true, force: true });
      const change = now === undefined ? 'is gone' : `was changed at ${isoTime(BigInt(now.ctimeNanos))}`;
      throw new MayflyError('E_TEMPLATE_TAMPERED', `the RAM image of template ${image.name} ${change}`);
    },
  };
}

// ---- files --------------------------------------------------------------------------------------------------------

/** Undefined when it cannot be looked at. */
async function found(path: string): Promise<Fingerprint | undefined> {
  return await fingerprint(path).catch(() => undefined);
}

async function requireFingerprint(path: string): Promise<Fingerprint> {
  const now = await found(path);
  if (now === undefined) throw new MayflyError('E_TEMPLATE_BUILD', `${path} is gone`);
  return now;
}

function sameFile(sealed: Fingerprint | undefined, found: Fingerprint | undefined): boolean {
  if (sealed === undefined || found === undefined) return false;
  return (
    sealed.inode === found.inode &&
    sealed.bytes === found.bytes &&
    sealed.mtimeNanos === found.mtimeNanos &&
    sealed.ctimeNanos === found.ctimeNanos
  );
}

/** A builder that was killed leaves its folder; the next builder removes it. */
async function removeAbandoned(root: string, options: TemplateOptions): Promise<void> {
  for (const name of await readdir(root)) {
    const builder = /^building-([^-]+-[^-]+)-/.exec(name)?.[1];
    if (builder === undefined || builder === options.builder || (await options.alive(builder))) continue;
    await rm(join(root, name), { recursive: true, force: true });
  }
}

async function requireSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  const needed = bytes + limits.diskFloorBytes;
  if (free >= needed) return;
  const mebibytes = (value: number): number => Math.floor(value / (1024 * 1024));
  throw new MayflyError(
    'E_DISK_SPACE',
    `a template needs ${mebibytes(needed)} MiB free in ${folder}, there are ${mebibytes(free)} MiB`,
  );
}
