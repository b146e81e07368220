// npm `oidc-provider`, which we did not write, as the provider of logins in the tests. Its own pages ask for name and password
// (any will do) and for consent. argv[2]: {port, client, redirect, backChannel, keys, accounts: {name: {name, groups}}}
import { generateKeyPairSync } from 'node:crypto';
import { Provider } from 'oidc-provider';

const { port, client, redirect, backChannel, keys, accounts } = JSON.parse(process.argv[2]);
const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: client,
    redirect_uris: [redirect],
    response_types: ['code'],
    grant_types: ['authorization_code'],
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    id_token_signed_response_alg: 'ES256',
    jwks_uri: keys,
    backchannel_logout_uri: backChannel,
    backchannel_logout_session_required: true,
  }],
  jwks: { keys: [{ ...signing, use: 'sig', alg: 'ES256', kid: 'first' }] },
  cookies: { keys: ['only for tests'] },
  claims: { openid: ['sub', 'groups'], profile: ['name'] },
  conformIdTokenClaims: false,
  // it refuses to reach machines inside; here the hub is on this one
  fetch: (url, { dispatcher: _guard, ...options }) => globalThis.fetch(url, options),
  pkce: { required: () => true },
  features: { backchannelLogout: { enabled: true }, devInteractions: { enabled: true }, pushedAuthorizationRequests: { requirePushedAuthorizationRequests: true } },
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, ...accounts[id] }) }),
});
provider.on('backchannel.error', (_ctx, error) => console.error('back channel', error));
for (const name of ['pushed_authorization_request.error', 'grant.error', 'authorization.error']) provider.on(name, (_ctx, error) => console.error(name, error.error_description, error.error_detail, error.cause));
provider.on('server_error', (_ctx, error) => console.error(error));
provider.listen(port, '127.0.0.1', () => console.log('listening'));
