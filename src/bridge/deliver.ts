/**
 * The two things that are done with a Clone: its limits and code go in and its proof comes out; then, once, the event
 * goes in and the function's end comes out.
 */
import { guarded } from '../clone/clone.ts';
import type { Clone } from '../clone/clone.ts';
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { Tail } from '../core/tail.ts';
import type { Clock } from '../core/time.ts';
import type { Broker } from '../egress/contract.ts';
import type { Event } from '../event/event.ts';
import type { HttpRequest } from '../event/http.ts';
import type { RuntimeWorkload, Workload } from '../event/workload.ts';
import type { Proof } from '../evidence/record.ts';
import { compareFacts, diskFacts, diskRatesOf, expectedFacts } from '../profile/facts.ts';
import { appArmorOf, filterOf } from '../profile/kernel.ts';
import type { SealedProfile } from '../profile/profile.ts';
import type { Execution, ServerAnswer } from '../validate/execution.ts';
import { environmentOf, executableEnvironment } from './environment.ts';
import type { Execution as SessionExecution, ExecuteOptions, Session } from './session.ts';
import { exchange } from './web.ts';

/** Resolves also when the proof differs: whoever asked decides. A clone that waited has proved the same before. */
export async function proveProfile(
  clone: Clone,
  { profile, digest }: SealedProfile,
  workload: Workload,
  signal: AbortSignal,
): Promise<Proof> {
  if (clone.proved?.profileDigest === digest) return clone.proved.proof;
  const { kernel, limits: granted } = profile;
  const policy = await clone.template.compile(appArmorOf(profile));
  const configuration = {
    limits: { ...granted, outputBytes: outputStreamBytes(granted.outputBytes, workload) },
    argv: workload.kind === 'executable' ? workload.argv : [],
    env: workload.kind === 'executable' ? executableEnvironment(environmentOf(workload)) : [],
    uid: kernel.uid,
    gid: kernel.gid,
    policy,
    filter: filterOf(profile),
  };
  const [guest, disk] = await guarded(clone, signal, () => Promise.all([
    clone.session.configure(configuration, workload.entries),
    clone.machine.diskRates(),
  ]));
  const reported = [...diskFacts(disk), ...guest];
  const expected = [...diskFacts(diskRatesOf(profile)), ...expectedFacts(profile, policy)];
  return { facts: kept(reported), differences: kept(compareFacts(expected, reported)) };
}

/** What a clone with such a proof ends with. */
export function proofMismatch({ differences }: Proof): MayflyError {
  return new MayflyError('E_PROOF_MISMATCH', differences.slice(0, 3).join('; '), { detail: differences.join('\n') });
}

/**
 * Has a waiting clone load its function, under the policy that it has just proved; true when it does. An executable
 * would run, and perhaps end, without its event. A function that is still loading after `loadMillisMax` goes on when it
 * has one.
 */
export async function loadAhead(clone: Clone, workload: Workload, clock: Clock, signal: AbortSignal): Promise<boolean> {
  if (workload.kind !== 'runtime') return false;
  await guarded(clone, signal, async () => {
    const loaded = clone.session.start(loadLine(workload, { rehearse: true }));
    await new Promise<void>((resolve) => {
      const cancel = clock.after(limits.loadMillisMax, resolve);
      void loaded.then(() => { cancel(); resolve(); });
    });
  });
  return true;
}

/** A runtime's result comes in an envelope, and so does its error. */
function outputStreamBytes(outputBytes: number, { kind }: Workload): number {
  if (kind === 'executable') return outputBytes;
  return Math.max(outputBytes + limits.envelopeBytes, limits.runtimeOutputFloorBytes);
}

function kept(lines: readonly string[]): string[] {
  return lines.slice(0, limits.proofLinesKept).map((line) => printableLine(line, limits.proofLineUnits));
}

export interface DeliveryOrder {
  readonly event: Event;
  readonly profile: SealedProfile;
  readonly workload: Workload;
  /** The event as a server gets it; present when the workload is one. */
  readonly request?: HttpRequest;
  /** What the function's connections meet. */
  readonly broker: Broker;
  /** Unix milliseconds: told to the function, enforced by whoever calls. */
  readonly deadlineMillis: number;
  readonly stdout: (chunk: Buffer) => void;
  readonly stderr: (chunk: Buffer) => void;
}

/** Rejects with E_FUNCTION_TIMEOUT, a guest's code, or E_INTERRUPTED on the signal. */
export async function deliverEvent(
  clone: Clone,
  order: DeliveryOrder,
  clock: Clock,
  signal: AbortSignal,
): Promise<Execution> {
  const { profile } = order;
  const tail = new Tail(limits.stderrTailBytes);
  const options: ExecuteOptions = {
    stdin: Buffer.concat(stdinOf(clone, order)),
    onStdout: order.stdout,
    onStderr: (chunk) => {
      tail.push(chunk);
      order.stderr(chunk);
    },
    wallMillis: profile.profile.limits.wallMillis,
    broker: order.broker,
  };
  // A function whose time is over is left as it is: the run may want to look at it before it is killed.
  const work = (): ReturnType<typeof executed> => executed(clone.session, order, options, clock);
  const { ended, answer } = await guarded(clone, signal, work, { kill: false });
  const { exit, output, outputTruncated, stdout, stderr } = ended;
  return {
    output,
    usage: exit,
    truncated: { output: outputTruncated, stdout: stdout.truncated, stderr: stderr.truncated },
    stderrTail: tail.bytes,
    ...(answer === undefined ? {} : { answer }),
  };
}

interface Executed {
  readonly ended: SessionExecution;
  readonly answer?: ServerAnswer;
}

/** A server is asked, and ended when it has answered or will not any more. */
async function executed(
  session: Session,
  { request, workload, profile }: DeliveryOrder,
  options: ExecuteOptions,
  clock: Clock,
): Promise<Executed> {
  const running = session.execute(options);
  const { server } = workload;
  if (server === undefined || request === undefined) return { ended: await running };
  const { port } = server;
  const early = session.status.state !== 'executing';
  const { outputBytes, wallMillis } = profile.profile.limits;
  // Who has used half of its time and does not listen yet will not answer either; and why is then told.
  const readyMillis = Math.min(limits.serverReadyMillisMax, Math.ceil(wallMillis / 2));
  const answer: ServerAnswer = early
    ? { ok: false, code: 'E_SERVER_NOT_LISTENING', message: `The function ended before it listened on port ${port}.` }
    : await exchange({ door: session.dial(port), port, request, clock, readyMillis, bytesMax: outputBytes });
  session.stop();
  return { ended: await running, answer };
}

function stdinOf(clone: Clone, order: DeliveryOrder): Buffer[] {
  const { event, workload } = order;
  const isServer = workload.server !== undefined;
  if (workload.kind === 'executable') return isServer ? [] : [event.bytes];
  const load = clone.proved?.loaded === true ? [] : [loadLine(workload, { rehearse: false })];
  return isServer ? load : [...load, contextLine(order), event.bytes];
}

/** First line on a runtime's fd 3 (docs/FORMATS.md). With time at hand the runtime also rehearses a call. */
function loadLine(workload: RuntimeWorkload, { rehearse }: { readonly rehearse: boolean }): Buffer {
  const { handler, server } = workload;
  const env = environmentOf(workload);
  const variables = env.size === 0 ? {} : { env: Object.fromEntries(env) };
  const told = { ...(rehearse ? { rehearse } : {}), ...(server === undefined ? {} : { serve: true }) };
  return Buffer.from(`${JSON.stringify({ handler, ...variables, ...told })}\n`);
}

/** Second line. */
function contextLine({ event, profile, deadlineMillis }: DeliveryOrder): Buffer {
  const { image, limits: granted } = profile.profile;
  const context = { runId: event.runId, deadlineMillis, memoryBytes: granted.memoryBytes, image: image.name };
  return Buffer.from(`${JSON.stringify(context)}\n`);
}
