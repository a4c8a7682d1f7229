/**
 * What one event may do, decided from everything that is known about it: the request, the threat and the rules. Pure:
 * the run, the dry run (`mayfly profile`) and the tests of rules get the same profile from the same input.
 */
import { MayflyError } from './core/errors.ts';
import type { RunId } from './core/ids.ts';
import { digestOf } from './core/json.ts';
import { acceptEvent } from './event/accept.ts';
import type { Event } from './event/event.ts';
import { httpRequestOf } from './event/http.ts';
import { codeBytes } from './event/workload.ts';
import type { Workload } from './event/workload.ts';
import type { ImageWish } from './profile/choose.ts';
import { generateProfile } from './profile/generate.ts';
import type { Policy } from './profile/generate.ts';
import { threatLevels } from './profile/levels.ts';
import type { Reason, SealedProfile } from './profile/profile.ts';
import type { ProfileRequest, RequestedLimits } from './profile/request.ts';
import type { EventSource, FunctionFacts, Threat } from './rules/context.ts';
import { evaluateRules } from './rules/evaluate.ts';
import type { Decision } from './rules/evaluate.ts';
import type { RuleSet } from './rules/rule.ts';
import type { RuleCase } from './rules/suite.ts';

/** What a caller knows beside the event. Everything absent is unknown, and no rule then sees it. */
export interface PolicyInput {
  readonly rules?: RuleSet;
  /** Who has sent the event, from the intake. */
  readonly source?: EventSource;
  readonly threat?: Threat;
  /** The name that rules know the function by; by default its handler or program. */
  readonly functionName?: string;
}

export interface PolicyRequest extends ProfileRequest {
  readonly workload: Workload;
  readonly policy?: PolicyInput;
}

export const NO_THREAT: Threat = Object.freeze({ score: 0, level: 'low', indicators: [] });

/**
 * Throws E_LIMIT_INVALID, E_EVENT_REJECTED when a rule refuses the event, and E_EVENT_INVALID when it is for a server
 * and no HTTP request.
 */
export function decideProfile(event: Event, request: PolicyRequest): SealedProfile {
  const { workload } = request;
  const server = workload.server !== undefined;
  if (server) httpRequestOf(event);
  const policy = decidePolicy(event, request);
  const sealed = generateProfile({ request: { ...request, server }, codeBytes: codeBytes(workload), policy });
  return requireFloor(sealed, request.floor);
}

/** Less than a function can work with is a refusal with a reason, not a run that dies of it. */
function requireFloor(sealed: SealedProfile, floor: RequestedLimits = {}): SealedProfile {
  for (const [name, least] of Object.entries(floor) as [keyof RequestedLimits, number][]) {
    const granted = sealed.profile.limits[name];
    if (granted >= least) continue;
    throw new MayflyError('E_EVENT_REJECTED', `${name} would be ${granted}, and the function needs ${least} at least`);
  }
  return sealed;
}

function decidePolicy(event: Event, { policy = {}, workload, image }: PolicyRequest): Policy | undefined {
  const { rules, source = {}, threat = NO_THREAT, functionName } = policy;
  if (rules === undefined) {
    const nothing = { wishes: [], destinations: [], reasons: [] };
    return policy.threat === undefined ? undefined : explained(threat, { ...threat, ...nothing });
  }
  const name = functionName ?? (workload.kind === 'runtime' ? workload.handler : (workload.argv[0] ?? ''));
  const target: FunctionFacts = { name, image: image.name, kind: workload.kind };
  const { acceptedNanos } = event;
  const decision = evaluateRules(rules, { event, source, function: target, acceptedNanos, threat });
  if (decision.rejections.length > 0) {
    throw new MayflyError('E_EVENT_REJECTED', decision.rejections.join('; '));
  }
  const chosen = decision.images.map(({ image: name, by }) => ({ field: 'rules', because: `${by} chooses ${name}` }));
  return explained(threat, { ...decision, reasons: [...decision.reasons, ...chosen] });
}

type Said = Pick<Decision, 'score' | 'level' | 'wishes' | 'destinations' | 'reasons'>;

function explained(threat: Threat, { score, level, wishes, destinations, reasons }: Said): Policy {
  const lines = [`score ${score} of 100, level ${level}`, ...(threat.explanation ?? [])];
  const about = lines.map((because): Reason => ({ field: 'threat', because }));
  return { level, wishes, destinations, reasons: [...about, ...reasons], denied: threat.denied ?? [] };
}

/** What rules say about the image of an event, as far as it is known without one. */
export function imageWishes(
  event: Event,
  { rules, source = {}, threat = NO_THREAT, functionName }: PolicyInput,
  target: FunctionFacts,
): { readonly level: Decision['level']; readonly wishes: readonly ImageWish[] } {
  if (rules === undefined) return { level: threat.level, wishes: [] };
  const named = { ...target, name: functionName ?? target.name };
  const { acceptedNanos } = event;
  const { level, images } = evaluateRules(rules, { event, source, function: named, acceptedNanos, threat });
  return { level, wishes: images };
}

/** What a caller knows with what intelligence has found; of two threats the higher one counts. */
export function withThreat(policy: PolicyInput | undefined, found: Threat): PolicyInput {
  const given = policy?.threat;
  if (given === undefined) return { ...policy, threat: found };
  const index = Math.max(threatLevels.indexOf(given.level), threatLevels.indexOf(found.level));
  const threat = {
    score: Math.max(given.score, found.score),
    level: threatLevels[index] ?? 'critical',
    indicators: [...given.indicators, ...found.indicators],
    explanation: [`given by the caller: ${given.score}`, ...(found.explanation ?? [])],
    denied: found.denied ?? [],
  };
  return { ...policy, threat };
}

// ---- without a VM ---------------------------------------------------------------------------------------------------

export type CaseResult =
  | { readonly kind: 'profile'; readonly sealed: SealedProfile }
  | { readonly kind: 'rejected'; readonly message: string };

/** Stands for the image where there is none at hand; its digest is that of nothing. */
const DRY_IMAGE_DIGEST = digestOf('');
const DRY_RUN_ID = '00000000-0000-7000-8000-000000000000' as RunId;

/** The profile that an event would get. Throws E_EVENT_INVALID, E_EVENT_TOO_LARGE and E_LIMIT_INVALID. */
export function decideCase(one: RuleCase, rules: RuleSet | undefined): CaseResult {
  const clock = { wallNanos: () => BigInt(one.atMillis) * 1_000_000n };
  const event = acceptEvent({ bytes: one.event, runId: DRY_RUN_ID, clock });
  const { name, image, kind } = one.function;
  const workload: Workload =
    kind === 'runtime' ? { kind, handler: name, entries: [] } : { kind, argv: [name], raw: false, entries: [] };
  const request: PolicyRequest = {
    image: {
      name: image,
      digest: one.imageDigest ?? DRY_IMAGE_DIGEST,
      ...(one.imageReasons === undefined ? {} : { reasons: one.imageReasons }),
      ...(one.imagePolicy === undefined ? {} : { policy: one.imagePolicy }),
    },
    limits: one.limits ?? {},
    paths: one.paths ?? {},
    minimumIsolation: one.minimumIsolation ?? 'tcg',
    workload,
    ...(one.network === undefined ? {} : { network: one.network }),
    policy: { ...(rules === undefined ? {} : { rules }), source: one.source, threat: one.threat },
  };
  try {
    return { kind: 'profile', sealed: decideProfile(event, request) };
  } catch (thrown) {
    if (thrown instanceof MayflyError && thrown.code === 'E_EVENT_REJECTED') {
      return { kind: 'rejected', message: thrown.message };
    }
    throw thrown;
  }
}
