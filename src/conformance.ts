/**
 * `mayfly image check`: whether an image can serve events on this machine. Its own clones answer that: the probe is run
 * in them on real events, by the same road that every event takes, so there is no second idea of how a clone is made.
 */
import { readFile } from 'node:fs/promises';
import type { App } from './app.ts';
import type { RunOrder } from './order.ts';
import type { AcceleratorMode } from './clone/accelerator.ts';
import { MayflyError } from './core/errors.ts';
import type { ErrorCode } from './core/errors.ts';
import { parseStrict } from './core/json.ts';
import { limits } from './core/limits.ts';
import type { FunctionEntry, Workload } from './event/workload.ts';
import { fail, judgeLimits, judgeReport, judgeUniqueness, parseReport, pass, skip } from './image/conform.ts';
import type { Check, ProbeReport } from './image/conform.ts';
import type { ImageManifest } from './image/manifest.ts';
import type { Image } from './image/repository.ts';
import type { Outcome } from './stages.ts';

export interface CheckOrder {
  /** Name, `name:tag` or digest. */
  readonly image: string;
  readonly allowUnsigned: boolean;
  readonly accelerator: AcceleratorMode;
  readonly signal: AbortSignal;
  /** Hears what takes seconds. */
  readonly say: (step: string) => void;
  /** In the event, and looked for in what comes back. */
  readonly token: string;
}

export interface CheckedImage {
  readonly name: string;
  /** Of its manifest. */
  readonly digest: string;
  /** Nothing failed. */
  readonly ok: boolean;
  readonly checks: readonly Check[];
}

/** Rejects with E_IMAGE_UNKNOWN, E_SETUP_MISSING, E_INTERRUPTED and what keeps any image from running here. */
export async function checkImage(app: App, order: CheckOrder): Promise<CheckedImage> {
  const { catalogue } = await app.images();
  const envelope = await catalogue.find(order.image, { allowUnsigned: true });
  const { digest, manifest } = envelope;
  const checks: Check[] = [];
  const policy = { allowUnsigned: order.allowUnsigned };
  const done = (): CheckedImage => {
    return { name: manifest.name, digest, ok: !checks.some(({ result }) => result === 'fail'), checks };
  };
  const certain = async (name: string, found: string, work: () => Promise<unknown>): Promise<boolean> => {
    checks.push(await outcomeOf(name, found, work));
    return checks.at(-1)?.result === 'pass';
  };
  order.say('reading all of its bytes');
  const trusted = (): Promise<void> => catalogue.requireTrust(envelope, policy);
  const whole = (): Promise<void> => catalogue.requireIntact(envelope, 'full');
  const believed = await certain('image: signature', 'of a trusted key', trusted);
  const intact = await certain('image: bytes', 'each digest is right', whole);
  if (!believed || !intact) return done();
  const { images } = await app.repository();
  const fits = await certain('image: machine', `Linux ${manifest.kernel.minimum} or newer, amd64`, async () => {
    await images.get(digest, policy);
  });
  if (!fits) return done();
  checks.push(...(await inClones(app, order, await images.get(digest, policy))));
  return done();
}

async function outcomeOf(name: string, found: string, work: () => Promise<unknown>): Promise<Check> {
  try {
    await work();
    return pass(name, found);
  } catch (thrown) {
    if (!(thrown instanceof MayflyError) || thrown.code === 'E_INTERRUPTED') throw thrown;
    return fail(name, `${thrown.code}: ${thrown.message}`, thrown.remedy);
  }
}

/** Few enough to be reached in a moment, and no default. */
const LIMITS = Object.freeze({ pids: 24, openFiles: 64, scratchBytes: 8 * 1024 * 1024 });

async function inClones(app: App, order: CheckOrder, image: Image): Promise<Check[]> {
  const { manifest } = image;
  const programs = programsOf(manifest);
  const probe = await readFile((await app.repository().then(({ probe: find }) => find())).path);
  const entries: readonly FunctionEntry[] = [{ kind: 'file', path: 'probe', mode: 0o755, content: probe }];
  const run = (words: readonly string[], asked: RunOrder['limits']): Promise<Ran> => {
    const workload: Workload = { kind: 'executable', argv: ['/function/probe', ...words], raw: false, entries };
    return runOne(app, order, image, workload, asked);
  };

  order.say('booting it, and asking the first clone');
  const first = await run(['facts', order.token, ...programs], LIMITS);
  const boot = bootChecks(first, order);
  const one = first.report;
  if (one === undefined) return [...boot, skip('guest, limits, uniqueness', 'no clone has answered')];
  order.say('asking a second clone');
  const { report: two, outcome } = await run(['facts', order.token, ...programs], LIMITS);
  const granted = outcome.profile?.profile.limits ?? LIMITS;
  const unique = two === undefined
    ? [fail('unique: second clone', wordsOf(outcome), remedyOf(outcome))]
    : judgeUniqueness(one, two);
  order.say('taking more than is granted');
  const memory = await run(['memory'], { memoryBytes: limits.memoryBytesMin });
  const spin = await run(['spin'], { wallMillis: SPIN_MILLIS });
  return [
    ...boot,
    ...judgeReport(one, programs),
    ...judgeLimits(one, granted),
    ended('limit: memory', memory, 'E_FUNCTION_MEMORY'),
    ended('limit: time', spin, 'E_FUNCTION_TIMEOUT'),
    ...unique,
    await runtimeCheck(app, order, image),
    ...notes(manifest),
  ];
}

const SPIN_MILLIS = 1_000;

interface Ran {
  readonly outcome: Outcome;
  readonly report: ProbeReport | undefined;
  readonly stderr: string;
}

async function runOne(
  app: App,
  { allowUnsigned, accelerator, signal, say, token }: CheckOrder,
  image: Image,
  workload: Workload,
  asked: RunOrder['limits'],
): Promise<Ran> {
  const said: Buffer[] = [];
  const order = {
    image: image.manifestDigest, language: null, allowUnsigned, workload, limits: asked, accelerator, signal,
    event: Buffer.from(JSON.stringify({ token })),
  };
  const outcome = await app.run(order, { progress: say, stderr: (chunk) => void said.push(chunk) });
  const interrupted = outcome.verdict.kind !== 'accepted' && outcome.verdict.code === 'E_INTERRUPTED';
  if (interrupted) throw new MayflyError('E_INTERRUPTED', 'The check was interrupted.');
  const bounds = { bytesMax: limits.outputBytesMax, depthMax: 8 };
  const parsed = outcome.output === undefined ? undefined : parseStrict(outcome.output, bounds);
  const report = parsed?.ok === true ? parseReport(parsed.value) : undefined;
  return { outcome, report, stderr: Buffer.concat(said).toString('utf8') };
}

function bootChecks({ outcome, report, stderr }: Ran, { token }: CheckOrder): Check[] {
  const { proof, timeline, verdict, release } = outcome;
  const millis = (stage: string): number => {
    return Math.round(timeline.filter((entry) => entry.stage === stage).reduce((sum, entry) => sum + entry.millis, 0));
  };
  const failed = (name: string): Check => fail(name, wordsOf(outcome), remedyOf(outcome));
  const checks = [
    millis('clone') === 0 && report === undefined && proof === undefined && verdict.kind !== 'accepted'
      ? failed('boot: template')
      : pass('boot: template', `ready after ${millis('template')} ms`),
  ];
  if (proof === undefined) return [...checks, failed('clone: adopted and limited')];
  checks.push(pass('clone: adopted and limited', `unique after ${millis('restore') + millis('uniqueness')} ms`));
  const [difference] = proof.differences;
  checks.push(
    difference === undefined
      ? pass('clone: proof equals profile', `${proof.facts.length} facts`)
      : fail('clone: proof equals profile', difference, remedyOf(outcome)),
  );
  checks.push(report === undefined ? failed('bridge: result') : pass('bridge: result', 'JSON from stdout'));
  if (report !== undefined) {
    const heard = stderr.includes(token);
    checks.push(
      heard
        ? pass('bridge: log', 'what was written to stderr has arrived')
        : fail('bridge: log', 'what was written to stderr is missing', remedyOf(outcome)),
    );
  }
  checks.push(
    release.verified
      ? pass('release', 'nothing of the clone is left')
      : fail('release', release.left.join(', '), 'End what is named, then run `mayfly doctor`.'),
  );
  return checks;
}

function ended(name: string, { outcome }: Ran, code: ErrorCode): Check {
  const { verdict } = outcome;
  const found = wordsOf(outcome);
  const right = verdict.kind !== 'accepted' && verdict.code === code;
  return right ? pass(name, found) : fail(name, `${found}; it should have ended as ${code}`, remedyOf(outcome));
}

function wordsOf({ verdict }: Outcome): string {
  return verdict.kind === 'accepted' ? 'it ended well' : `${verdict.code}: ${verdict.message}`;
}

function remedyOf({ verdict }: Outcome): string {
  return verdict.kind === 'accepted' ? 'Run `mayfly doctor`; the clone is not limited.' : verdict.remedy;
}

/** What the image says that it starts, absolute paths. */
function programsOf({ command, runtime }: ImageManifest): string[] {
  const named = [runtime?.argv[0], command?.entrypoint[0] ?? command?.cmd[0]];
  return [...new Set(named.filter((path) => path !== undefined))];
}

const HANDLERS: readonly { readonly program: RegExp; readonly file: string; readonly text: string }[] = [
  { program: /node$/, file: 'check.mjs', text: 'export default (event) => ({ token: event.data.token });\n' },
  { program: /python3?$/, file: 'check.py', text: 'def handler(event, context):\n    return event["data"]\n' },
];

/** A warm runtime must take a handler, too. */
async function runtimeCheck(app: App, order: CheckOrder, image: Image): Promise<Check> {
  const name = 'runtime: handler';
  const argv = image.manifest.runtime?.argv;
  if (argv === undefined) return skip(name, 'the image has no language runtime');
  const handler = HANDLERS.find(({ program }) => argv.slice(0, 2).some((word) => program.test(word)));
  if (handler === undefined) return skip(name, `no handler is known for ${argv[0]}`);
  const { file, text } = handler;
  const entries: readonly FunctionEntry[] = [{ kind: 'file', path: file, mode: 0o644, content: Buffer.from(text) }];
  const { outcome } = await runOne(app, order, image, { kind: 'runtime', handler: `/function/${file}`, entries }, {});
  const answered = outcome.output?.toString('utf8').includes(order.token) === true;
  return answered ? pass(name, 'it has answered') : fail(name, wordsOf(outcome), remedyOf(outcome));
}

/** No reason to refuse an image, but to know it. */
function notes({ command, runtime }: ImageManifest): Check[] {
  if (command !== null || runtime !== null) return [];
  return [skip('command', 'it has none: run it with --program or --exec')];
}
