/**
 * The jail around one VMM process: what is left of it when a guest escapes into QEMU.
 *
 * With root: its own uid that owns nothing, no capability, no new privileges, its own empty network and IPC namespace,
 * no core file, few descriptors, and death with its parent. Without root the uid and the namespaces cannot be had;
 * `mayfly doctor` says so and the rest still holds. QEMU's own seccomp sandbox is part of its arguments (vmm/qemu.ts).
 *
 * The order matters: pdeathsig is cleared by a change of credentials, so setpriv drops the uid before it sets the
 * signal and execs QEMU last; QEMU's own `-runas` would clear it again (measured, DESIGN.md).
 */
import { limits } from '../core/limits.ts';

/** First uid of the range that VMMs run under: nobody's by convention, above distributions' and containers' ranges. */
const UID_BASE = 2_000_000_000;
/** VMMs that one mayfly process can have alive at once, each under its own uid. */
const UIDS_PER_PROCESS = 64;
/** Group that may open a template's RAM image. Its members are VMMs only, and each gets exactly one descriptor. */
export const templateGroup = UID_BASE - 1;

/**
 * The last link: executes the rest only when its parent is still the one that is named. The death signal of a parent
 * that died before `setpriv` had asked for it never comes, and the VMM would stay for ever (test/perf/kills.ts found
 * one in eight kills). The text is constant; everything else are arguments.
 */
const IF_PARENT_LIVES = ['sh', '-c', 'test "$PPID" = "$0" && exec "$@"'] as const;

export interface Jail {
  /** Own uid and namespaces per VM; false without root. */
  readonly confined: boolean;
  /** Takes a uid that no other live VM has; undefined without root. Give it back with `release`. */
  take(): JailSlot;
}

export interface JailSlot {
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  /** Command and arguments to put before the VMM's own. */
  readonly command: readonly string[];
  release(): void;
}

export interface JailOptions {
  /** Effective uid of this process. */
  readonly euid: number;
  /** This process: its live siblings have other pids, so uid ranges never overlap. */
  readonly pid: number;
  /** Group of /dev/kvm, where KVM is used. */
  readonly kvmGroup?: number;
}

export function openJail(options: JailOptions): Jail {
  const { pid } = options;
  const confined = options.euid === 0;
  const taken = new Set<number>();
  return {
    confined,
    take(): JailSlot {
      if (!confined) {
        return { uid: undefined, gid: undefined, command: jailCommand(pid, undefined, []), release: () => {} };
      }
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      if (slot >= UIDS_PER_PROCESS) throw new Error(`more than ${UIDS_PER_PROCESS} VMs in one process`);
      taken.add(slot);
      const uid = UID_BASE + (options.pid % 2_000_000) * UIDS_PER_PROCESS + slot;
      const groups = options.kvmGroup === undefined ? [] : [options.kvmGroup];
      return { uid, gid: templateGroup, command: jailCommand(pid, uid, groups), release: () => taken.delete(slot) };
    },
  };
}

/** The launcher chain; every link execs the next, so the pid that was spawned is the VMM's. */
function jailCommand(parent: number, uid: number | undefined, groups: readonly number[]): string[] {
  const rlimits = ['prlimit', '--core=0', `--nofile=${limits.vmmOpenFiles}`, '--memlock=0', '--'];
  const common = ['--pdeathsig', 'KILL', '--no-new-privs'];
  const last = [...IF_PARENT_LIVES, String(parent)];
  if (uid === undefined) return [...rlimits, 'setpriv', ...common, '--', ...last];
  return [
    'unshare', '--net', '--ipc', '--',
    ...rlimits,
    'setpriv', `--reuid=${uid}`, `--regid=${templateGroup}`,
    ...(groups.length === 0 ? ['--clear-groups'] : [`--groups=${groups.join(',')}`]),
    '--inh-caps=-all', '--bounding-set=-all', ...common, '--',
    ...last,
  ];
}
