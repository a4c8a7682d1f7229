/**
 * From event and request to the Profile: pure, so that the same input always gives the same profile with the same
 * digest, and everything that one execution may do can be known before there is a clone.
 */
import { MayflyError } from '../core/errors.ts';
import { canonicalJson, digestOf } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { levelCaps, levelCapture, levelSteps } from './levels.ts';
import type { ThreatLevel } from './levels.ts';
import { fieldOrders, settle, showFieldValue } from './order.ts';
import type { FieldName, FieldOrder, FieldValue, Wish } from './order.ts';
import type { ExecuteLevel } from './apparmor.ts';
import { isPolicyClass, policyClasses } from './classes.ts';
import type { PolicyClass } from './classes.ts';
import { appArmorDigest, filterDigest } from './kernel.ts';
import { fileSystemOf } from './paths.ts';
import type { ForensicsCapture, Profile, ProfileLimits, Reason, SealedProfile } from './profile.ts';
import { defaultNetworkLimits, noNetwork } from './network.ts';
import type { NetworkPolicy, NetworkRule } from './network.ts';
import type { ProfileRequest, RequestedLimits } from './request.ts';
import type { SyscallLevel } from './seccomp.ts';

const MiB = 1024 * 1024;
const PAGE_BYTES = 4096;

/** Workloads run as this user and group: no file of a base image belongs to it, and it is not the host's nobody. */
export const workloadId = 1000;

/**
 * RAM sizes that VMs come in, bytes. Every size needs a template of its own, so there are few; each holds a round
 * amount of workload memory (256 MiB, 512 MiB, 1 GiB, ...) plus the guest's own need and some code.
 */
export const ramClasses: readonly number[] = [448, 704, 1216, 2240, 4416].map((mebibytes) => mebibytes * MiB);

export interface GenerateOptions {
  readonly request: ProfileRequest;
  /** Bytes of the function's files: they live in the clone's memory beside the workload. */
  readonly codeBytes: number;
  readonly policy?: Policy | undefined;
}

/** What threat and rules have to say; absent, nothing is known and nobody wishes anything. */
export interface Policy {
  readonly level: ThreatLevel;
  readonly wishes: readonly Wish[];
  readonly reasons: readonly Reason[];
  /** What rules allow beside the request, and what they deny. */
  readonly destinations: readonly { readonly rule: NetworkRule; readonly by: string }[];
  /** Nothing may connect there, whatever was requested. */
  readonly denied: readonly { readonly rule: NetworkRule; readonly because: string }[];
}

const NO_POLICY: Policy = Object.freeze({ level: 'low', wishes: [], reasons: [], destinations: [], denied: [] });

const flags: { readonly [name in keyof Required<RequestedLimits>]: string } = {
  memoryBytes: '--memory',
  wallMillis: '--timeout',
  cpuQuotaMicros: '--cpu',
  pids: '--pids',
  openFiles: '--open-files',
  scratchBytes: '--scratch',
  diskReadBytesPerSecond: '--disk-rate',
  diskReadOperationsPerSecond: '--disk-operations',
  outputBytes: '--output',
};

/** Throws E_LIMIT_INVALID and E_IMAGE_INCOMPATIBLE. */
export function generateProfile({ request, codeBytes, policy = NO_POLICY }: GenerateOptions): SealedProfile {
  const reasons: Reason[] = [...policy.reasons];
  const wishes = [...wishesOfLevel(policy.level), ...policy.wishes];
  const because = <T>(field: string, value: T, reason: string): T => {
    reasons.push({ field, because: reason });
    return value;
  };
  /** What it begins with, and then every wish; the last reason that is not overruled has set it. */
  const settled = (field: FieldName, start: FieldValue, reason: string): FieldValue => {
    const { value, wishes: seen } = settle(field, start, wishes);
    reasons.push({ field, because: reason, ...(value === start ? {} : { overruled: true }) });
    for (const { effect, value: wished, by, overruled } of seen) {
      const text = `${by} ${effect === 'permit' ? 'allows' : 'allows at most'} ${showFieldValue(field, wished)}`;
      reasons.push({
        field,
        because: order(field).kind === 'ladder' ? `${by} requires ${wished}` : text,
        ...(overruled ? { overruled } : {}),
      });
    }
    return value;
  };
  const limit = (name: NumberLimit): number => {
    const wanted = (request.limits as Partial<Record<NumberLimit, number>>)[name];
    const field = `limits.${name}` as const;
    if (wanted === undefined) return Number(settled(field, bounds(name).byDefault, 'default'));
    return Number(settled(field, checked(name, wanted), `requested (${flagOf(name)})`));
  };

  // The kernel counts in pages, and the clone has to report exactly what the profile says.
  const memoryBytes = Math.floor(limit('memoryBytes') / PAGE_BYTES) * PAGE_BYTES;
  const codeRoom = Math.ceil(codeBytes / MiB) * MiB;
  const scratch = Math.ceil(limit('scratchBytes') / PAGE_BYTES) * PAGE_BYTES;
  const profileLimits: ProfileLimits = {
    memoryBytes,
    cpuQuotaMicros: limit('cpuQuotaMicros'),
    cpuPeriodMicros: because('limits.cpuPeriodMicros', limits.cpuPeriodMicros, 'default'),
    pids: limit('pids'),
    openFiles: limit('openFiles'),
    wallMillis: limit('wallMillis'),
    scratchBytes: scratch + codeRoom,
    diskReadBytesPerSecond: limit('diskReadBytesPerSecond'),
    diskReadOperationsPerSecond: limit('diskReadOperationsPerSecond'),
    stdoutBytes: limit('stdoutBytes'),
    stderrBytes: limit('stderrBytes'),
    outputBytes: limit('outputBytes'),
  };
  if (codeRoom > 0) because('limits.scratchBytes', codeRoom, `and ${codeRoom / MiB} MiB for the function's files`);

  reasons.push(...(request.image.reasons ?? [{ field: 'image', because: 'requested (--image)' }]));
  const ladder = (field: FieldName, start: string, reason: string): string => String(settled(field, start, reason));
  const network = networkOf(request.network, policy, reasons);
  const syscalls = ladder('kernel.syscalls', 'standard', 'default') as SyscallLevel;
  const execute = ladder('kernel.execute', 'any', 'default') as ExecuteLevel;
  const classes = classesOf(request);
  const classReason = request.server === true ? 'the function is a server' : "the image's class";
  const { fileSystem, reasons: pathReasons } = fileSystemOf(request.paths, policy.level);
  reasons.push(...pathReasons);
  const profile: Profile = {
    profileVersion: 1,
    image: { name: request.image.name, digest: request.image.digest },
    shape: {
      vcpus: because('shape.vcpus', 1, 'the only shape there is'),
      ramBytes: because(
        'shape.ramBytes',
        ramClassFor(memoryBytes + limits.guestOverheadBytes + codeRoom),
        'smallest class that holds the workload, the guest and the function',
      ),
    },
    network,
    limits: profileLimits,
    kernel: {
      uid: because('kernel.uid', workloadId, 'default'),
      gid: because('kernel.gid', workloadId, 'default'),
      noNewPrivileges: because('kernel.noNewPrivileges', true, 'default'),
      capabilities: because('kernel.capabilities', [], 'default'),
      lsm: because('kernel.lsm', 'apparmor', 'the only module that a policy is made for'),
      syscalls,
      execute,
      seccomp: because(
        'kernel.seccomp',
        { class: classes.seccomp, digest: filterDigest(classes.seccomp, syscalls, network) },
        `${classReason}, ${syscalls}`,
      ),
      appArmor: because(
        'kernel.appArmor',
        { class: classes.appArmor, digest: appArmorDigest(classes.appArmor, execute, network, fileSystem) },
        `${classReason}, and what is allowed above`,
      ),
    },
    fileSystem,
    isolation: {
      minimum: settled(
        'isolation.minimum',
        request.minimumIsolation,
        request.minimumIsolation === 'kvm' ? 'requested (--accel kvm)' : 'default',
      ) as 'kvm' | 'tcg',
    },
    forensics: {
      capture: settled('forensics.capture', 'never', 'default') as ForensicsCapture,
      retentionDays: Number(settled('forensics.retentionDays', limits.retentionDaysDefault, 'default')),
    },
  };
  return deepFreeze({ profile, digest: digestOf(canonicalJson(profile)), reasons });
}

type NumberLimit = FieldName extends infer Name ? (Name extends `limits.${infer Limit}` ? Limit : never) : never;

function order(field: FieldName): FieldOrder {
  return fieldOrders[field];
}

function bounds(name: NumberLimit): Extract<FieldOrder, { kind: 'number' }> {
  return fieldOrders[`limits.${name}`];
}

function flagOf(name: NumberLimit): string {
  return (flags as Partial<Record<NumberLimit, string>>)[name] ?? name;
}

function checked(name: NumberLimit, wanted: number): number {
  const { min, max } = bounds(name);
  if (Number.isSafeInteger(wanted) && wanted >= min && wanted <= max) return wanted;
  const range = `${inUnits(name, min)} to ${inUnits(name, max)}`;
  throw new MayflyError(
    'E_LIMIT_INVALID',
    `${name} is ${inUnits(name, wanted)}; it must be ${range} (${flagOf(name)}).`,
  );
}

const SERVER_POLICY = { seccomp: 'web', appArmor: 'web' };

function classesOf({ image, server }: ProfileRequest): Record<'seccomp' | 'appArmor', PolicyClass> {
  const { name, policy } = server === true ? { name: image.name, policy: SERVER_POLICY } : image;
  const known = (wanted = 'compute'): PolicyClass => {
    if (isPolicyClass(wanted)) return wanted;
    const message = `Image ${name} asks for the kernel policy ${wanted}; there are ${policyClasses.join(', ')}.`;
    throw new MayflyError('E_IMAGE_INCOMPATIBLE', message);
  };
  return { seccomp: known(policy?.seccomp), appArmor: known(policy?.appArmor) };
}

function wishesOfLevel(level: ThreatLevel): Wish[] {
  const wish = (field: string, value: FieldValue): Wish => {
    return { field: field as FieldName, effect: 'restrict', value, by: `level ${level}` };
  };
  const capture = levelCapture[level];
  return [
    ...(capture === 'never' ? [] : [wish('forensics.capture', capture)]),
    ...Object.entries(levelCaps[level]).map(([name, value]) => wish(`limits.${name}`, value)),
    ...Object.entries(levelSteps[level]).map(([name, step]) => wish(`kernel.${name}`, step)),
  ];
}

/**
 * The request and what rules allow and deny, and what intelligence denies: deny beats allow wherever they stand. Where
 * nothing can be reached there is nothing to deny.
 */
function networkOf(
  requested: NetworkPolicy = noNetwork,
  { destinations, denied }: Policy,
  reasons: Reason[],
): NetworkPolicy {
  const because = (text: string): void => void reasons.push({ field: 'network', because: text });
  because(requested === noNetwork ? 'default' : 'requested');
  const allows = destinations.some(({ rule }) => rule.action === 'allow');
  if (requested.mode === 'none' && !allows) return noNetwork;
  for (const { rule, by } of destinations)
    because(`${by} ${rule.action === 'allow' ? 'allows' : 'denies'} ${at(rule)}`);
  for (const each of denied) because(`denied: ${each.because}`);
  const rules = [...requested.rules, ...[...destinations, ...denied].map(({ rule }) => rule)];
  const open = { mode: 'rules', tls: noNetwork.tls, limits: defaultNetworkLimits } as const;
  return { ...(requested.mode === 'none' ? open : requested), rules };
}

function at({ host, cidr, ports }: NetworkRule): string {
  const where = [host, cidr].filter((each) => each !== undefined).join(' at ');
  const ranges = ports?.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
  return ranges === undefined ? where : `${where}:${ranges.join(',')}`;
}

function inUnits(name: string, value: number): string {
  if (name.endsWith('Millis')) return `${value} ms`;
  if (name.endsWith('Micros')) return `${value} µs`;
  if (name.endsWith('Bytes')) return value % MiB === 0 ? `${value / MiB} MiB` : `${value} bytes`;
  return String(value);
}

/** Largest possible need, so that no accepted request is without a class. */
const NEED_MAX = limits.memoryBytesMax + limits.guestOverheadBytes + limits.codeBytesMax;

function ramClassFor(needBytes: number): number {
  const fitting = ramClasses.find((ramBytes) => ramBytes >= needBytes);
  if (fitting === undefined) throw new MayflyError('E_LIMIT_INVALID', `no VM holds ${needBytes} bytes of memory`);
  return fitting;
}

if (ramClassFor(NEED_MAX) === undefined) throw new Error('profile/generate.ts: the largest class is too small');

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const item of Object.values(value)) deepFreeze(item);
  }
  return value;
}
