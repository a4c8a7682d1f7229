/** System packages that Mayfly runs and builds with, and how they get here. */
import { spawn } from 'node:child_process';
import { MayflyError } from '../../src/core/errors.ts';
import { attempt, run } from './command.ts';
import type { Say } from './workshop.ts';

/** Package and what it is for. */
export const systemPackages: readonly (readonly [name: string, use: string])[] = [
  ['qemu-system-x86', 'runs the virtual machines'],
  ['apparmor', 'compiles the policy inside a clone'],
  ['util-linux', 'jails the VMM: setpriv, prlimit, unshare, flock'],
  ['erofs-utils', 'makes read-only base images'],
  ['squashfs-tools', 'packs imported images'],
  ['postgresql-15', 'the server that tests insert rows into'],
  ['umoci', 'makes the OCI images that tests import'],
  ['musl-tools', 'compiles the static guest agent'],
  ['gcc', 'compiles the native part of the Node shim'],
  ['libc6-dev', 'its headers'],
  ['binutils', 'strips the image of what only debuggers need'],
  ['yara', 'matches rules on attachments'],
  ['xz-utils', 'unpacks kernel modules'],
];

export async function missingPackages(signal: AbortSignal): Promise<string[]> {
  const names = systemPackages.map(([name]) => name);
  // Exit status 1: some are unknown to dpkg, which is an answer.
  const format = `\${Package} \${db:Status-Status}\n`;
  const { status, stdout } = await attempt(['dpkg-query', '--show', '--showformat', format, ...names], { signal });
  if (status > 1) {
    throw new MayflyError('E_SETUP_MISSING', 'Set-up builds from packages of Debian, and this system has no dpkg.', {
      remedy: 'Run it on Debian 12, also in a virtual machine or a container.',
    });
  }
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
  const { status } = await attempt(['sudo', '-n', 'true'], { signal });
  return status === 0 ? ['sudo', '-n'] : undefined;
}

/** Lets sudo ask for a password, which it then remembers. What the person answers, `rootCommand` finds out. */
export async function askForRoot(missing: readonly string[], note: (text: string) => void): Promise<void> {
  note(`To install ${missing.join(', ')}, sudo may ask for your password.`);
  await new Promise<void>((resolve) => {
    spawn('sudo', ['-v'], { stdio: 'inherit' }).once('error', () => resolve()).once('close', () => resolve());
  });
}

/** Rejects with E_PACKAGES_MISSING when there is no root. */
export async function installPackages(
  missing: readonly string[],
  asRoot: readonly string[] | undefined,
  signal: AbortSignal,
  say: Say,
): Promise<void> {
  if (asRoot === undefined) throw packagesMissing(missing);
  const wait = ['-o', 'DPkg::Lock::Timeout=120'];
  const apt = ['env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', 'install', '--yes', '--no-install-recommends'];
  const install = [...asRoot, ...apt, ...wait, ...missing];
  say(`installing ${missing.join(', ')}`);
  const line = (text: string): void => {
    if (/^(Get|Unpacking|Setting up)/.test(text)) say(text.slice(0, 80));
  };
  // Without `signal`: apt-get sees Ctrl-C itself, and killed otherwise it would leave packages half installed.
  const first = await attempt(install, { line, inherit: true });
  if (first.status === 0) return;
  // Lists that are missing or old: the only failure that is worth a second try.
  say('refreshing the list of packages');
  await attempt([...asRoot, 'apt-get', 'update'], { signal, inherit: true });
  await run(install, { line, inherit: true });
}

export function packagesMissing(missing: readonly string[]): MayflyError {
  const command = `apt-get install --no-install-recommends ${missing.join(' ')}`;
  return new MayflyError('E_PACKAGES_MISSING', `These packages are missing: ${missing.join(', ')}.`, {
    remedy: `Have an administrator run \`${command}\`, then run this again.`,
  });
}
