/** System packages that Mayfly runs and builds with, and how they get here. */
import { MayflyError } from '../../src/core/errors.ts';
import { attempt, run } from './command.ts';
import type { Say } from './workshop.ts';

/** Package and what it is for. */
export const systemPackages: readonly (readonly [name: string, use: string])[] = [
  ['qemu-system-x86', 'runs the virtual machines'],
  ['apparmor', 'compiles the policy inside a clone'],
  ['util-linux', 'jails the VMM: setpriv, prlimit, unshare, flock'],
  ['erofs-utils', 'makes read-only base images'],
  ['musl-tools', 'compiles the static guest agent'],
  ['gcc', 'compiles the native part of the Node shim'],
  ['libc6-dev', 'its headers'],
  ['binutils', 'strips the image of what only debuggers need'],
  ['xz-utils', 'unpacks kernel modules'],
];

export async function missingPackages(signal: AbortSignal): Promise<string[]> {
  const names = systemPackages.map(([name]) => name);
  // Exit status 1: some are unknown to dpkg, which is an answer.
  const { stdout } = await attempt(['dpkg-query', '--show', '--showformat', '${Package} ${db:Status-Status}\n', ...names], {
    signal,
  });
  return notInstalled(names, stdout);
}

/** `dpkg-query`'s lines of `name status`. */
export function notInstalled(names: readonly string[], report: string): string[] {
  const installed = new Set<string>();
  for (const line of report.split('\n')) {
    const [name = '', status] = line.split(' ');
    if (status === 'installed') installed.add(name);
  }
  return names.filter((name) => !installed.has(name));
}

/** How to run a program as root: a prefix for its arguments, empty for root itself; undefined when there is no way. */
export async function rootCommand(euid: number, signal: AbortSignal): Promise<readonly string[] | undefined> {
  if (euid === 0) return [];
  const quiet = await attempt(['sudo', '-n', 'true'], { signal }).catch(() => undefined);
  return quiet?.status === 0 ? ['sudo', '-n'] : undefined;
}

/** Rejects with E_PACKAGES_MISSING when there is no root. */
export async function installPackages(
  missing: readonly string[],
  asRoot: readonly string[] | undefined,
  signal: AbortSignal,
  say: Say,
): Promise<void> {
  if (asRoot === undefined) throw packagesMissing(missing);
  const env = ['env', 'DEBIAN_FRONTEND=noninteractive'];
  const install = [...asRoot, ...env, 'apt-get', 'install', '--yes', '--no-install-recommends', ...missing];
  say(`installing ${missing.join(', ')}`);
  const line = (text: string): void => {
    if (/^(Get|Unpacking|Setting up)/.test(text)) say(text.slice(0, 80));
  };
  const first = await attempt(install, { signal, line });
  if (first.status === 0) return;
  // Lists that are missing or old: the only failure that is worth a second try.
  say('refreshing the list of packages');
  await attempt([...asRoot, 'apt-get', 'update'], { signal });
  await run(install, { signal, line });
}

export function packagesMissing(missing: readonly string[]): MayflyError {
  const command = `apt-get install --no-install-recommends ${missing.join(' ')}`;
  return new MayflyError('E_PACKAGES_MISSING', `These packages are missing: ${missing.join(', ')}.`, {
    remedy: `Have an administrator run \`${command}\`, then run this again.`,
  });
}
