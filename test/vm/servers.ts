/**
 * The world that clones reach in tests: servers on loopback, and a DNS server that knows their names. Nothing here
 * leaves this machine.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Server, Socket } from 'node:net';
import { createServer } from 'node:net';
import packet from 'dns-packet';
import { EgressBroker } from '../../src/egress/broker.ts';
import { realNetwork } from '../../src/egress/network.ts';
import { parseNetworkFile } from '../../src/egress/parse.ts';
import { clock } from './rig.ts';

/** Closes what the test has opened. */
export interface Closer {
  after(work: () => unknown): void;
}

export async function listening(closer: Closer, server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closer.after(() => {
    if ('closeAllConnections' in server) (server.closeAllConnections as () => void)();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

export async function tcpServer(closer: Closer, serve: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    serve(socket);
  });
  const port = await listening(closer, server);
  closer.after(() => { for (const socket of sockets) socket.destroy(); });
  return port;
}

export interface TestDns {
  /** As `127.0.0.1:5353`. */
  readonly server: string;
  /** Names that were asked for. */
  readonly asked: string[];
}

/** Answers A queries from a table of names; a list of answers is given one at a time, the last one again and again. */
export async function dnsServer(closer: Closer, table: Readonly<Record<string, readonly string[]>>): Promise<TestDns> {
  const socket = createSocket('udp4');
  const asked: string[] = [];
  socket.on('message', (message, peer) => {
    const query = packet.decode(message);
    const [question] = query.questions ?? [];
    if (question === undefined) return;
    const name = question.name.toLowerCase();
    const known = table[name];
    const turn = asked.filter((each) => each === name).length;
    if (question.type === 'A') asked.push(name);
    const data = known?.[Math.min(turn, known.length - 1)];
    const isAnswered = question.type === 'A' && data !== undefined;
    const answers = isAnswered ? [{ type: 'A' as const, name: question.name, ttl: 1, data }] : [];
    const flags = packet.RECURSION_DESIRED | packet.RECURSION_AVAILABLE | (known === undefined ? 3 : 0);
    const reply = packet.encode({ type: 'response', id: query.id ?? 0, flags, questions: [question], answers });
    socket.send(reply, peer.port, peer.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  closer.after(() => socket.close());
  return { server: `127.0.0.1:${socket.address().port}`, asked };
}

/** A broker under a policy as it stands in a file of `--network`. */
export function brokerFor(policy: unknown, dns?: TestDns): EgressBroker {
  const network = realNetwork([dns?.server ?? '127.0.0.1:9']);
  return new EgressBroker({ policy: parseNetworkFile(JSON.stringify(policy)), network, clock });
}
