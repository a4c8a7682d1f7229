/** `mayfly init`, `mayfly deploy`, `mayfly function …`: from a folder to something that events can be sent to. */
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { printJson } from './io.ts';
import type { Io } from './io.ts';
import { table } from './list.ts';
import { formatBytes } from './units.ts';

export interface FunctionOptions {
  readonly tenant: string;
  readonly json?: boolean;
}

const STARTERS = {
  node: {
    file: 'handler.mjs',
    text: `export default async (event, context) => ({ hello: event.data?.name ?? 'world', run: context.runId });\n`,
  },
  python: {
    file: 'handler.py',
    text: "def handler(event, context):\n    data = event.get('data') or {}\n"
      + "    return {'hello': data.get('name', 'world'), 'run': context['runId']}\n",
  },
} as const;

const manifestOf = (
  name: string,
  handler: string,
): string => `# What this function is and what it may use. Every field: docs/SERVE.md
mayfly: 1
name: ${name}
handler: ${handler}
limits:
  memory: 256M
  timeout: 10s
# network: [api.example.com:443]   # without it nothing can be reached
retry:
  attempts: 3                      # runs of one event; only failures of the host are retried
  backoff: 1s
`;

/** Writes a starter; never over something that is there. */
export async function init(io: Io, folder: string, options: { readonly runtime: string }): Promise<number> {
  const starter = (STARTERS as Partial<Record<string, (typeof STARTERS)['node' | 'python']>>)[options.runtime];
  if (starter === undefined) throw new MayflyError('E_USAGE', `--runtime ${options.runtime}: must be node or python`);
  const { isServiceName, MANIFEST_FILE } = await import('../function/manifest.ts');
  const name = basename(resolve(folder)).toLowerCase().replace(/[^a-z0-9-]+/g, '-').replace(/^-+|-+$/g, '');
  await mkdir(folder, { recursive: true });
  const files: readonly (readonly [string, string])[] = [
    [MANIFEST_FILE, manifestOf(isServiceName(name) ? name : 'hello', starter.file)], [starter.file, starter.text],
  ];
  for (const [file, text] of files) {
    await writeFile(join(folder, file), text, { flag: 'wx' }).catch((cause: unknown) => {
      const { code } = cause as NodeJS.ErrnoException;
      const why = code === 'EEXIST' ? 'it is there already' : `it cannot be written (${code})`;
      throw new MayflyError('E_USAGE', `${join(folder, file)}: ${why}`, {
        cause, remedy: 'Name a folder that is new or empty.',
      });
    });
    io.out(`${join(folder, file)}\n`);
  }
  return 0;
}

export async function deploy(io: Io, folder: string, { tenant, json }: FunctionOptions): Promise<number> {
  const { functions, tenants } = await (await io.openApp()).places();
  const { packVersion } = await import('../function/version.ts');
  const packed = await packVersion(resolve(folder));
  // The first steps need no tenants; whoever names one means one that is there.
  if (tenant === 'default') await tenants.put(tenant);
  else await tenants.require(tenant);
  const { deployments, name } = await functions.deploy(tenant, packed);
  const answer = { tenant, name, version: packed.digest, bytes: packed.code.length, deployments: deployments.length };
  if (json === true) printJson(io, answer);
  else io.out(`${tenant}/${name} is now ${packed.digest.slice(0, 19)} (${formatBytes(packed.code.length)})\n`);
  return 0;
}

export async function list(io: Io, { tenant, json }: Partial<FunctionOptions>): Promise<number> {
  const functions = (await (await io.openApp()).places()).functions;
  const rows: { tenant: string; name: string; version: string; deployedAt: string; versions: number }[] = [];
  for (const owner of tenant === undefined ? await functions.tenants() : [tenant]) {
    for (const name of await functions.names(owner)) {
      const { deployments } = await functions.record(owner, name);
      const [current] = deployments;
      if (current === undefined) continue;
      const { version, at } = current;
      rows.push({ tenant: owner, name, version, deployedAt: at, versions: deployments.length });
    }
  }
  if (json === true) printJson(io, rows);
  else {
    const lines = rows.map((row) => [
      row.tenant, row.name, row.version.slice(7, 19), String(row.versions), row.deployedAt,
    ]);
    io.out(table([['TENANT', 'FUNCTION', 'VERSION', 'VERSIONS', 'DEPLOYED'], ...lines]));
  }
  return 0;
}

export async function show(io: Io, name: string, { tenant, json }: FunctionOptions): Promise<number> {
  const functions = (await (await io.openApp()).places()).functions;
  const { deployments } = await functions.record(tenant, name);
  const { manifest, digest, bytes } = await functions.load(tenant, name);
  // Values of variables may be secrets.
  const shown = { ...manifest, env: Object.keys(manifest.env) };
  if (json === true) printJson(io, { tenant, name, version: digest, bytes, manifest: shown, deployments });
  else {
    const history = deployments.map(({ version, at }, index) => [
      index === 0 ? 'in use' : '', version.slice(7, 19), at,
    ]);
    io.out(`${tenant}/${name}, ${formatBytes(bytes)}\n${JSON.stringify(shown, null, 2)}\n${table(history)}`);
  }
  return 0;
}

export async function rollback(
  io: Io, name: string, { tenant, to }: FunctionOptions & { readonly to?: string },
): Promise<number> {
  const { deployments } = await ((await (await io.openApp()).places()).functions).rollback(tenant, name, to);
  io.out(`${tenant}/${name} is now ${deployments[0]?.version.slice(0, 19) ?? ''}\n`);
  return 0;
}

export async function remove(io: Io, name: string, { tenant }: FunctionOptions): Promise<number> {
  await ((await (await io.openApp()).places()).functions).remove(tenant, name);
  io.out(`${tenant}/${name} is gone\n`);
  return 0;
}
