/**
 * The AppArmor policy of one profile, as text: everything is denied that no line allows, and a `deny` beats whatever
 * allows. It is computed from the profile alone; the host compiles it for the guest's kernel (clone/policy.ts), the
 * agent has it loaded, and the proof names the digest of what the kernel has.
 *
 * It stands beside uid, mounts and seccomp, and repeats some of what they do: a mistake in one of them is not a hole.
 */
import type { PolicyClass } from './classes.ts';

/** The name in the kernel; guest/agent/agent.h has it too. */
export const policyName = 'mayfly';

/** From permissive to restrictive: what the workload may execute or map as code. */
export const executeLevels = ['any', 'image'] as const;
export type ExecuteLevel = (typeof executeLevels)[number];

export interface AppArmorSource {
  readonly functionClass: PolicyClass;
  readonly execute: ExecuteLevel;
  readonly network: boolean;
  /** Absolute paths without a trailing slash, of folders or files; each with all that is in it. */
  readonly writable: readonly string[];
  readonly readOnly: readonly string[];
  readonly hidden: readonly string[];
}

const PREAMBLE = [
  // The agent looks into /proc and has the process take its filter; nobody else does.
  'signal (receive) peer=unconfined,',
  'ptrace (readby, tracedby) peer=unconfined,',
  `signal (send, receive) peer=${policyName},`,
  `ptrace (read, readby) peer=${policyName},`,
  'network unix,',
];

/** What a kernel tells of itself and its machine, and no function needs: addresses, timers, keys, other processes. */
const TELLTALES = [
  '/proc/{kcore,kallsyms,kmsg,keys,key-users,timer_list,sched_debug,config.gz,slabinfo,vmallocinfo,iomem,ioports}',
  '/proc/{modules,interrupts,softirqs,sysrq-trigger}',
  '/proc/{acpi,bus,driver,irq,scsi,tty}/**',
  '/proc/sys/kernel/{core_pattern,modprobe,hotplug,randomize_va_space}',
  '/proc/**/{mem,syscall,stack,wchan,pagemap,clear_refs,kpagecount}',
];

/** `m` is mapping as code, `ix` executing under this same policy, `k` locking. */
export function appArmorText(source: AppArmorSource): string {
  const network = source.network ? ['network inet,', 'network inet6,', 'network netlink raw,'] : [];
  const lines = [
    ...PREAMBLE,
    ...network,
    '/ r,',
    '/** mrixk,',
    '/dev/{null,zero,full,random,urandom,tty} rw,',
    ...source.writable.flatMap((path) => [`${quoted(path, '/')} rw,`, `${quoted(path, '/**')} rwkl,`]),
    ...source.readOnly.flatMap((path) => [`deny ${quoted(path, '{,/}')} wl,`, `deny ${quoted(path, '/**')} wl,`]),
    ...source.hidden.flatMap((path) => [`deny ${quoted(path, '{,/}')} rwlkmx,`, `deny ${quoted(path, '/**')} rwlkmx,`]),
    ...TELLTALES.map((path) => `deny ${path} rwlkmx,`),
    ...(source.execute === 'image' ? source.writable.map((path) => `deny ${quoted(path, '/**')} mx,`) : []),
  ];
  return profile(source.functionClass, lines);
}

/** What a template's runtime warms up under, before there is an event: nothing is denied that other means allow. */
export const templatePolicyText = profile('template', [
  'file,', 'network,', 'signal,', 'ptrace,', 'capability,', 'mount,', 'umount,', 'pivot_root,',
]);

function profile(what: string, lines: readonly string[]): string {
  return `# ${what}\nprofile ${policyName} {\n${lines.map((line) => `  ${line}\n`).join('')}}\n`;
}

/** Quoted, with what AppArmor would read as a pattern escaped. */
function quoted(path: string, suffix: string): string {
  return `"${path.replace(/[\\"?*[\]{}^]/g, '\\$&')}${suffix}"`;
}
