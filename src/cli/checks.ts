/**
 * The judgements of `mayfly doctor`: from what was found on the machine to ok, warn or fail, each with its remedy.
 * Pure, so that a machine of any kind can be described in a test.
 */
import type { QemuFacts } from '../clone/probe.ts';

export type Level = 'ok' | 'warn' | 'fail';

export interface Check {
  readonly name: string;
  readonly level: Level;
  /** What was found. */
  readonly found: string;
  /** What to do about it; empty when it is ok. */
  readonly remedy: string;
}

export interface MachineFacts {
  readonly node: string;
  /** Undefined: not found. `problem` says why it cannot be used. */
  readonly qemu: Omit<QemuFacts, 'binary'> | undefined;
  readonly qemuProblem: string;
  readonly accelerator: { readonly isolation: 'kvm' | 'tcg'; readonly why: string } | undefined;
  readonly images: readonly string[];
  /** Why kernel, initramfs or an image cannot be used; empty when they can. */
  readonly repositoryProblem: string;
  readonly root: boolean;
  /** Launchers of the jail that are missing. */
  readonly missingLaunchers: readonly string[];
  /** apparmor_parser, which set-up installs to compile the policy inside a clone. */
  readonly apparmorParser: boolean;
  readonly cgroup: string;
  readonly ksm: boolean;
  readonly swapBytes: number;
  readonly smt: boolean;
  /** CPU weaknesses that the kernel calls vulnerable. */
  readonly vulnerable: readonly string[];
  readonly freeBytes: number;
  readonly freeBytesNeeded: number;
  readonly home: string;
  /** Undefined: there is no such folder yet. */
  readonly homeFolder: { readonly mode: number; readonly uid: number } | undefined;
  /** Effective uid of this process. */
  readonly euid: number;
  /** Runs of dead processes that were just ended. */
  readonly endedRuns: readonly string[];
  /** Runs that need somebody to look at them, and why. */
  readonly staleRuns: readonly string[];
}

const SETUP = 'Run `npm run setup`.';

/** For hosts of code that nobody trusts: what is only a warning elsewhere is a reason to refuse there. */
export function judgeStrictly(facts: MachineFacts): Check[] {
  return judge(facts).map((check) => (check.level === 'warn' ? { ...check, level: 'fail' } : check));
}

export function judge(facts: MachineFacts): Check[] {
  const check = (name: string, level: Level, found: string, remedy = ''): Check => ({ name, level, found, remedy });
  const major = Number(facts.node.split('.')[0]);
  const gibibytes = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
  const free = `${gibibytes(facts.freeBytes)} free in ${facts.homeFolder === undefined ? '/' : facts.home}`;
  const ended = facts.endedRuns.length > 0 ? `ended and sealed: ${facts.endedRuns.join(', ')}` : 'none';
  return [
    major >= 24 ? check('node', 'ok', facts.node) : check('node', 'fail', facts.node, 'Use Node 24 or newer.'),
    qemu(facts),
    facts.qemu?.readOnlyRam === false
      ? check(
          'template protection', 'warn',
          'this QEMU must open a template for writing to clone it; changes are detected, not prevented',
          'QEMU 8.2 or newer opens it read-only.',
        )
      : check('template protection', 'ok', 'clones cannot write to their template'),
    facts.repositoryProblem === ''
      ? check('images', 'ok', facts.images.join(', '))
      : check('images', 'fail', facts.repositoryProblem, SETUP),
    accelerator(facts),
    facts.missingLaunchers.length === 0
      ? check('jail', facts.root ? 'ok' : 'warn',
          facts.root
            ? 'own uid, network and IPC namespace per VM'
            : 'not root: VMs share your uid and network namespace; no new privileges, seccomp and rlimits still hold',
          facts.root ? '' : 'Run Mayfly as root to give every VM a uid and namespaces of its own.')
      : check('jail', 'fail', `missing: ${facts.missingLaunchers.join(', ')}`, 'Install the package util-linux.'),
    facts.apparmorParser
      ? check('policy compiler', 'ok', 'apparmor_parser')
      : check('policy compiler', 'warn', 'apparmor_parser is missing: no AppArmor policy can be compiled for clones',
          'Install the package apparmor, or run `npm run setup`.'),
    check('cgroup', 'ok', `${facts.cgroup}; limits of a workload are set inside its guest`),
    facts.ksm
      ? check('memory merging', 'warn', 'KSM is on: equal pages of VMs are shared, which leaks their content',
          'echo 0 > /sys/kernel/mm/ksm/run')
      : check('memory merging', 'ok', 'KSM is off'),
    facts.swapBytes > 0
      ? check('swap', 'warn', `${gibibytes(facts.swapBytes)}: guest memory may reach the disk`,
          'Run `swapoff -a` on hosts of untrusted code.')
      : check('swap', 'ok', 'none'),
    facts.smt
      ? check('hyper-threading', 'warn', 'on: VMs may share a core', 'echo off > /sys/devices/system/cpu/smt/control')
      : check('hyper-threading', 'ok', 'off or absent'),
    facts.vulnerable.length > 0
      ? check('cpu', 'warn', `vulnerable: ${facts.vulnerable.join(', ')}`, 'Update microcode and kernel.')
      : check('cpu', 'ok', 'no weakness that the kernel calls vulnerable'),
    facts.freeBytes < facts.freeBytesNeeded
      ? check('disk', 'fail', free, `Free ${gibibytes(facts.freeBytesNeeded)} or set MAYFLY_HOME.`)
      : check('disk', 'ok', free),
    homeFolder(facts),
    facts.staleRuns.length > 0
      ? check('abandoned runs', 'warn', facts.staleRuns.join('; '),
          'Look at the folders named; the next run tries again.')
      : check('abandoned runs', 'ok', ended),
  ];
}

/** Names of CPU weaknesses that are open, as in `Vulnerable: no microcode` and `Mitigation: …; SMT vulnerable`. */
export function weaknesses(said: ReadonlyMap<string, string>): readonly string[] {
  return [...said].flatMap(([name, text]) => (/vulnerable/i.test(text) ? [name] : []));
}

function qemu({ qemu: found, qemuProblem }: MachineFacts): Check {
  const name = 'qemu';
  if (found === undefined) {
    return { name, level: 'fail', found: qemuProblem, remedy: `${SETUP} It installs qemu-system-x86.` };
  }
  const [flaw] = found.flaws;
  if (flaw === undefined) return { name, level: 'ok', found: found.version, remedy: '' };
  const said = `${found.version} has ${flaw.id}: ${flaw.what}`;
  const remedy = `Install QEMU ${flaw.fixed.join(', ')} or a later one of these series.`;
  if (found.package === '') return { name, level: 'fail', found: said, remedy };
  return {
    name,
    level: 'warn',
    found: `${said}, unless its package (${found.package}) has it mended`,
    remedy: `Look for ${flaw.id} in the changelog of the package. ${remedy}`,
  };
}

/** Whoever can write there decides what every VM boots from, and can rewrite the evidence. */
function homeFolder({ home, homeFolder: folder, euid }: MachineFacts): Check {
  const name = 'home';
  if (folder === undefined) return { name, level: 'fail', found: `there is no ${home}`, remedy: SETUP };
  if ((folder.mode & 0o022) !== 0) {
    const found = `others may write to ${home} (mode ${(folder.mode & 0o777).toString(8)})`;
    return { name, level: 'fail', found, remedy: `Run \`chmod go-w ${home}\`, then \`npm run setup -- --verify\`.` };
  }
  if (folder.uid !== euid && folder.uid !== 0) {
    const remedy = 'Set MAYFLY_HOME to a folder of your own.';
    return { name, level: 'warn', found: `${home} belongs to uid ${folder.uid}, not to you`, remedy };
  }
  return { name, level: 'ok', found: `${home}, writable by its owner alone`, remedy: '' };
}

function accelerator({ accelerator: verdict, repositoryProblem }: MachineFacts): Check {
  const name = 'accelerator';
  if (verdict === undefined) {
    const found = `not tried: ${repositoryProblem === '' ? 'QEMU is missing' : 'nothing to boot'}`;
    return { name, level: 'fail', found, remedy: SETUP };
  }
  if (verdict.isolation === 'kvm') return { name, level: 'ok', found: `kvm: ${verdict.why}`, remedy: '' };
  return {
    name,
    level: 'warn',
    found: `tcg (software emulation, no isolation promise): ${verdict.why}`,
    remedy: 'Use a machine with working KVM for code that you do not trust; `--accel kvm` refuses anything else.',
  };
}
