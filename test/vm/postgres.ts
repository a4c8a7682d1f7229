/**
 * A real PostgreSQL for one test file: a cluster of its own in a temporary folder, on loopback at a port of its own,
 * owned by a user without privileges. It has one database with a table of orders. Ended by the pid that it was started
 * with.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync } from 'node:fs';
import { chmod, chown, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Debian's nobody: PostgreSQL refuses to be root. */
const UNPRIVILEGED = 65_534;
const READY_MILLIS_MAX = 60_000;

export interface Postgres {
  readonly port: number;
  /** Rows of a query as psql prints them, unaligned. */
  query(sql: string): Promise<string>;
  stop(): Promise<void>;
}

export async function startPostgres(): Promise<Postgres> {
  const programs = globSync('/usr/lib/postgresql/*/bin').sort().at(-1);
  if (programs === undefined) throw new Error('PostgreSQL is not installed; `npm run setup` installs it');
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-postgres-'));
  const data = join(folder, 'data');
  const asNobody: SpawnOptions = process.geteuid?.() === 0 ? { uid: UNPRIVILEGED, gid: UNPRIVILEGED } : {};
  if (asNobody.uid !== undefined) await chown(folder, UNPRIVILEGED, UNPRIVILEGED);
  await chmod(folder, 0o700);
  const env = { LC_ALL: 'C.UTF-8', PATH: '/usr/bin:/bin', HOME: folder };
  const options: SpawnOptions = { ...asNobody, env, cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] };
  const init = ['-D', data, '-U', 'shop', '-A', 'trust', '-E', 'UTF8', '--no-sync', '--no-instructions'];
  await finished(spawn(join(programs, 'initdb'), init, options), 'initdb');
  const port = await freePort();
  const server = spawn(join(programs, 'postgres'), [
    '-D', data, '-h', '127.0.0.1', '-p', String(port), '-k', folder,
    '-c', 'fsync=off', '-c', 'shared_buffers=16MB', '-c', 'max_connections=10', '-c', 'autovacuum=off',
  ], options);
  let log = '';
  const gone = once(server, 'exit');
  server.stderr?.setEncoding('utf8').on('data', (text: string) => { log = (log + text).slice(-4000); });
  const query = (sql: string): Promise<string> => {
    const args = ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', '-p', String(port), '-U', 'shop'];
    return finished(spawn(join(programs, 'psql'), [...args, '-d', 'postgres', '-c', sql], options), 'psql');
  };
  const stop = async (): Promise<void> => {
    // "Fast": whoever is connected is cut off.
    if (server.exitCode === null) server.kill('SIGINT');
    await gone;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const ends = Date.now() + READY_MILLIS_MAX;
    while (!existsSync(join(data, 'postmaster.pid')) || !log.includes('ready to accept connections')) {
      if (server.exitCode !== null || Date.now() > ends) throw new Error(`PostgreSQL does not start: ${log}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await query('CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL, amount integer CHECK (amount > 0))');
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return { port, query, stop };
}

async function finished(child: ChildProcess, name: string): Promise<string> {
  let [out, err] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => { out += text; });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { err += text; });
  const [status] = (await once(child, 'close')) as [number | null];
  if (status !== 0) throw new Error(`${name} ended with ${status}: ${err}`);
  return out.trim();
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
