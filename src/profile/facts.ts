/**
 * What the clone must report before the event is delivered, computed from the Profile alone, and the comparison.
 *
 * The lists must be equal: a missing fact, another value and a fact that nobody asked for (a mount, a second network
 * interface) are all differences, and any difference ends the clone. docs/FORMATS.md lists the facts.
 */
import { createHash } from 'node:crypto';
import { printableLine } from '../core/json.ts';
import { policyName } from './apparmor.ts';
import { limits } from '../core/limits.ts';
import type { DiskRates } from '../clone/vmm/contract.ts';
import type { Profile } from './profile.ts';

const CAPABILITY_SETS = ['inheritable', 'permitted', 'effective', 'bounding', 'ambient'];

/** Mounts that a workload sees, whatever its profile: guest/agent/root.c makes exactly these. */
const MOUNTS: readonly string[] = [
  'mount./=overlay nodev,nosuid,rw',
  'mount./dev=tmpfs noexec,nosuid,ro',
  'mount./dev/shm=tmpfs nodev,noexec,nosuid,rw',
  'mount./function=tmpfs nodev,nosuid,ro',
  'mount./proc=proc nodev,noexec,nosuid,ro',
  'mount./proc/kcore=tmpfs noexec,nosuid,ro',
  'mount./proc/sys/kernel/random/boot_id=tmpfs nodev,noexec,nosuid,ro',
  'mount./tmp=tmpfs nodev,nosuid,rw',
];

/**
 * Whatever the policy, all traffic goes to the agent and through it to the host's broker, which has the policy: the
 * rules of guest/agent/rules.c, as chain and expressions.
 */
const NETWORK: readonly string[] = [
  'net.interfaces=lo',
  'net.route=local lo',
  'net.rule.mayfly.ask=meta cmp payload cmp payload cmp payload bitwise cmp queue',
  'net.rule.mayfly.refuse=meta cmp reject',
  'net.rule.mayfly.catch=meta cmp payload cmp payload cmp immediate tproxy',
  'net.namespace=shared',
];

/** What the facts follow from. */
export interface FactSource {
  readonly limits: Pick<
    Profile['limits'],
    'memoryBytes' | 'cpuQuotaMicros' | 'cpuPeriodMicros' | 'pids' | 'openFiles' | 'scratchBytes'
  >;
  readonly kernel: Pick<Profile['kernel'], 'uid' | 'gid' | 'noNewPrivileges' | 'capabilities'> & {
    readonly seccomp: { readonly digest: string };
  };
}

/** What the VMM is told, and then says. */
export function diskRatesOf({ limits: granted }: Pick<Profile, 'limits'>): DiskRates {
  const { diskReadBytesPerSecond, diskReadOperationsPerSecond } = granted;
  return { readBytesPerSecond: diskReadBytesPerSecond, readOperationsPerSecond: diskReadOperationsPerSecond };
}

/** The host's part of a proof: what the VMM holds the whole machine to, whatever its guest says. */
export function diskFacts({ readBytesPerSecond, readOperationsPerSecond }: DiskRates): string[] {
  return [`disk.read.bytes=${readBytesPerSecond}`, `disk.read.operations=${readOperationsPerSecond}`];
}

/** `policy`: the bytes that the guest's kernel was given; it says the SHA-1 of those that it has. */
export function expectedFacts({ limits: granted, kernel }: FactSource, policy: Buffer): string[] {
  if (kernel.capabilities.length > 0) throw new Error('profile/facts.ts: no fact for kept capabilities yet');
  return [
    `uid=${kernel.uid}`,
    `gid=${kernel.gid}`,
    'groups=',
    `no_new_privs=${kernel.noNewPrivileges ? 1 : 0}`,
    'seccomp=2',
    // The agent's own, from the first instruction on (guest/agent/seccomp.c), and the profile's.
    'seccomp.filters=2',
    ...CAPABILITY_SETS.map((set) => `cap.${set}=0000000000000000`),
    `seccomp.digest=${kernel.seccomp.digest}`,
    `apparmor.label=${policyName} (enforce)`,
    `apparmor.policy=${createHash('sha1').update(policy).digest('hex')}`,
    `cgroup.memory.max=${granted.memoryBytes}`,
    'cgroup.memory.swap.max=0',
    `cgroup.pids.max=${granted.pids}`,
    `cgroup.cpu.max=${granted.cpuQuotaMicros} ${granted.cpuPeriodMicros}`,
    'cgroup.member=1',
    `rlimit.nofile=${granted.openFiles} ${granted.openFiles}`,
    'rlimit.core=0 0',
    ...MOUNTS,
    `scratch.bytes=${granted.scratchBytes}`,
    ...NETWORK,
    'pid.namespace=private',
    'mount.namespace=private',
  ];
}

/** One line for each difference, as in `pids.max: expected 128, clone reports max`; empty when the lists are equal. */
export function compareFacts(expected: readonly string[], reported: readonly string[]): string[] {
  const differences: string[] = [];
  const wanted = new Map(expected.map(splitFact));
  const seen = new Set<string>();
  for (const fact of reported.slice(0, limits.fieldsMax)) {
    const [name, value] = splitFact(fact);
    const shown = printableLine(name, 100);
    const want = wanted.get(name);
    if (seen.has(name)) differences.push(`${shown}: reported twice`);
    else if (want === undefined) differences.push(`${shown}: not expected, clone reports ${printableLine(value, 200)}`);
    else if (want !== value) differences.push(`${shown}: expected ${want}, clone reports ${printableLine(value, 200)}`);
    seen.add(name);
  }
  for (const [name, value] of wanted) {
    if (!seen.has(name)) differences.push(`${name}: expected ${value}, clone reports nothing`);
  }
  if (reported.length > limits.fieldsMax) differences.push(`more than ${limits.fieldsMax} facts`);
  return differences;
}

/** A fact without `=` has its whole text as its name and is thereby unexpected. */
function splitFact(fact: string): readonly [string, string] {
  const at = fact.indexOf('=');
  return at === -1 ? [fact, ''] : [fact.slice(0, at), fact.slice(at + 1)];
}
