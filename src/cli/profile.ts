/** `mayfly profile`: the profile that an event would get, without a VM. */
import { decideCase } from '../policy.ts';
import { MayflyError } from '../core/errors.ts';
import { formatReasons } from './explain.ts';
import { policyOf } from './facts.ts';
import type { FactOptions } from './facts.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { eventOf, limitsOf } from './run.ts';
import type { RunOptions } from './run.ts';

export interface ProfileOptions extends FactOptions, Omit<RunOptions, 'rules' | 'from' | 'score'> {
  readonly function?: string;
  readonly explain?: boolean;
}

/** Exit 0 with the profile; E_EVENT_REJECTED when a rule refuses the event. */
export async function profile(io: Io, options: ProfileOptions): Promise<number> {
  const [policy, event] = [await policyOf(io, options), await eventOf(io, options)];
  const name = options.image ?? 'node';
  const image = await io.openApp().then(async (app) => await (await app.repository()).images.get(name));
  const decided = decideCase(
    {
      event,
      source: policy?.source ?? {},
      function: {
        name: options.function ?? '/function/handler',
        image: name,
        kind: image.runtime === null ? 'executable' : 'runtime',
      },
      threat: policy?.threat ?? { score: 0, level: 'low', indicators: [] },
      atMillis: Number(io.wallNanos() / 1_000_000n),
      imageDigest: image.digest,
      limits: limitsOf(options),
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
