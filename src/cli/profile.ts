/** `mayfly profile`: the profile that an event would get, without a VM. */
import { extname } from 'node:path';
import { decideCase, NO_THREAT, withThreat } from '../policy.ts';
import { MayflyError } from '../core/errors.ts';
import { formatReasons } from './explain.ts';
import { policyOf } from './facts.ts';
import type { FactOptions } from './facts.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { networkOf } from './network.ts';
import { classOf, eventOf, languageOfEnding, limitsOf, pathsOf } from './run.ts';
import type { RunOptions } from './run.ts';

export interface ProfileOptions extends FactOptions, Omit<RunOptions, 'rules' | 'from' | 'score'> {
  readonly function?: string;
  readonly explain?: boolean;
}

/** Exit 0 with the profile; E_EVENT_REJECTED when a rule refuses the event. */
export async function profile(io: Io, options: ProfileOptions): Promise<number> {
  const event = await eventOf(io, options);
  const app = await io.openApp();
  const given = await policyOf(io, options);
  const source = given?.source ?? {};
  const found = await app.threat(event, source);
  const policy = found === undefined ? given : withThreat(given, found);
  const { network } = await networkOf(io, options);
  const functionClass = classOf(options.class);
  const named = options.function ?? '/function/handler';
  const byEnding = languageOfEnding.get(extname(named));
  const choice = await app.selectImage({
    event,
    workload: { kind: 'runtime', handler: named, entries: [] },
    // Of a function that nothing is known of, one thing is assumed.
    language: byEnding ?? (functionClass === undefined ? 'node' : undefined),
    ...(options.image === undefined ? {} : { image: options.image }),
    ...(functionClass === undefined ? {} : { functionClass }),
    ...(policy === undefined ? {} : { policy }),
  });
  const image = await (await app.repository()).images.get(choice.image);
  const decided = decideCase(
    {
      event,
      source,
      function: {
        name: named,
        image: image.name,
        kind: image.runtime === null ? 'executable' : 'runtime',
      },
      threat: policy?.threat ?? NO_THREAT,
      ...(network === undefined ? {} : { network }),
      atMillis: Number(io.wallNanos() / 1_000_000n),
      imageDigest: image.digest,
      imageReasons: choice.reasons,
      imagePolicy: image.manifest.policy,
      limits: limitsOf(options),
      paths: pathsOf(options),
      minimumIsolation: options.accel === 'kvm' ? 'kvm' : 'tcg',
    },
    policy?.rules,
  );
  if (decided.kind === 'rejected') throw new MayflyError('E_EVENT_REJECTED', decided.message);
  const { sealed } = decided;
  if (options.json === true)
    io.out(`${JSON.stringify({ digest: sealed.digest, ...sealed.profile, reasons: sealed.reasons })}\n`);
  else if (options.explain === true) io.out(formatReasons(sealed, paint(io.colour && io.outIsTerminal)));
  else printJson(io, sealed.profile);
  return 0;
}
