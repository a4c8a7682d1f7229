/** Goal: the commands for functions, tenants and keys do what their help says. Method: a real home. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openApp } from '../../../src/app.ts';
import type { Io } from '../../../src/cli/io.ts';
import { runProgram } from '../../../src/cli/program.ts';
import { createDisk } from '../../../src/core/disk.ts';
import { createProcesses } from '../../../src/release/processes.ts';
import { clock, inFolder, random } from '../../vm/rig.ts';

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function inHome(work: (mayfly: (...args: string[]) => Promise<Ended>, folder: string) => Promise<void>) {
  await inFolder(async (folder) => {
    const home = join(folder, 'home');
    const environment = (): undefined => undefined;
    const [disk, processes] = [createDisk(), createProcesses()];
    const app = await openApp({ home, clock, random, disk, processes, euid: 0, pid: process.pid, environment });
    await work(async (...args) => {
      const [out, err]: [Buffer[], Buffer[]] = [[], []];
      const io: Io = {
        out: (text) => void out.push(Buffer.from(text)), err: (text) => void err.push(Buffer.from(text)),
        outIsTerminal: false, errIsTerminal: false, colour: false, readInput: async () => Buffer.alloc(0),
        signal: new AbortController().signal, now: () => clock.now(), wallNanos: () => clock.wallNanos(),
        openApp: async () => app, examples: '', version: '9.8.7',
      };
      const code = await runProgram(io, args);
      return { code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() };
    }, folder);
  });
}

test('every command has help with an example', async () => {
  await inHome(async (mayfly) => {
    const commands = [
      ['init'],
      ['deploy'],
      ['function', 'list'],
      ['function', 'show'],
      ['function', 'rollback'],
      ['function', 'delete'],
      ['tenant', 'create'],
      ['tenant', 'list'],
      ['tenant', 'delete'],
      ['key', 'create'],
      ['key', 'list'],
      ['key', 'revoke'],
    ];
    for (const command of commands) {
      const { code, out } = await mayfly(...command, '--help');
      assert.equal(code, 0);
      assert.match(out, /Examples?:\n {2}(\w+=\$\()?mayfly /, command.join(' '));
    }
  });
});

test('init, deploy, list, show, roll back, delete', async () => {
  await inHome(async (mayfly, folder) => {
    const hello = join(folder, 'Hello World');
    assert.equal((await mayfly('init', hello)).code, 0);
    assert.match(readFileSync(join(hello, 'mayfly.yaml'), 'utf8'), /name: hello-world\n/);
    const again = await mayfly('init', hello);
    assert.deepEqual([again.code, /it is there already/.test(again.err)], [2, true]);
    assert.equal((await mayfly('init', join(folder, 'py'), '--runtime', 'python')).code, 0);
    assert.equal((await mayfly('init', join(folder, 'rb'), '--runtime', 'ruby')).code, 2);
    for (const name of [hello, join(folder, 'py')]) assert.equal((await mayfly('deploy', name)).code, 0);
    writeFileSync(join(hello, 'handler.mjs'), 'export default () => 2;');
    const second = JSON.parse((await mayfly('deploy', hello, '--json')).out) as {
      version: string;
      deployments: number;
    };
    assert.equal(second.deployments, 2);
    const list = JSON.parse((await mayfly('function', 'list', '--json')).out) as { name: string; version: string }[];
    assert.deepEqual(list.map(({ name }) => name), ['hello-world', 'py']);
    assert.equal(list[0]?.version, second.version);
    assert.match((await mayfly('function', 'list')).out, /default\s+hello-world\s+[0-9a-f]{12}\s+2/);
    assert.equal((await mayfly('function', 'rollback', 'hello-world')).code, 0);
    const shown = JSON.parse((await mayfly('function', 'show', 'hello-world', '--json')).out) as { version: string };
    assert.notEqual(shown.version, second.version);
    assert.match((await mayfly('function', 'show', 'hello-world')).out, /in use/);
    assert.equal((await mayfly('function', 'delete', 'hello-world')).code, 0);
    assert.match((await mayfly('function', 'show', 'hello-world')).err, /E_FUNCTION_UNKNOWN/);
    writeFileSync(join(hello, 'mayfly.yaml'), 'mayfly: 1\nname: hello\nhandler: handler.mjs\nlimit: 3\n');
    const wrong = await mayfly('deploy', hello);
    assert.deepEqual([wrong.code, /mayfly\.yaml:4: .*did you mean limits/.test(wrong.err)], [2, true], wrong.err);
    assert.match((await mayfly('deploy', join(folder, 'py'), '--tenant', 'acme')).err, /E_TENANT_UNKNOWN/);
  });
});

test('tenants and keys: the key alone on stdout, once', async () => {
  await inHome(async (mayfly, folder) => {
    assert.equal(
      (await mayfly('tenant', 'create', 'acme', '--rate', '20')).out,
      'acme: 20 events per second, 500 waiting\n',
    );
    assert.equal((await mayfly('tenant', 'create', 'acme', '--rate', 'x')).code, 2);
    const { out: key } = await mayfly('key', 'create', '--tenant', 'acme', '--role', 'invoke', '--role', 'deploy');
    assert.match(key, /^mayfly_[a-z0-9]{16}_[\w-]{43}\n$/);
    assert.equal((await mayfly('key', 'create', '--role', 'king')).code, 2);
    assert.equal((await mayfly('key', 'create', '--days', '3')).code, 0, 'default is made when it is needed');
    const keys = JSON.parse((await mayfly('key', 'list', '--json')).out) as { id: string; roles: string[] }[];
    assert.deepEqual(keys.map(({ roles }) => roles.join()).sort(), ['invoke', 'invoke,deploy']);
    assert.ok(!(await mayfly('key', 'list', '--json')).out.includes(key.slice(24, 60)));
    assert.match((await mayfly('key', 'list')).out, /acme\s+invoke,deploy/);
    assert.equal((await mayfly('key', 'revoke', String(keys[0]?.id))).code, 0);
    assert.match((await mayfly('key', 'revoke', String(keys[0]?.id))).err, /E_KEY_UNKNOWN/);
    await mayfly('init', join(folder, 'f'));
    await mayfly('deploy', join(folder, 'f'), '--tenant', 'acme');
    assert.match((await mayfly('tenant', 'delete', 'acme')).err, /still has 1 functions/);
    await mayfly('function', 'delete', 'f', '--tenant', 'acme');
    assert.equal((await mayfly('tenant', 'delete', 'acme')).code, 0);
    const left = JSON.parse((await mayfly('tenant', 'list', '--json')).out) as { name: string }[];
    assert.deepEqual(left.map(({ name }) => name), ['default']);
    assert.match((await mayfly('tenant', 'list')).out, /^TENANT/);
  });
});
