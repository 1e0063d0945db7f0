// An OpenID provider for the sandbox and tests: device flow, client credentials, rotating refresh tokens, and access
// tokens that are JWTs (RFC 9068). It reads clients, accounts, and keys from a file, and keeps everything else in memory.
//
// Environment: PROVIDER_ISSUER (a URL), PROVIDER_PORT, PROVIDER_FILE, PROVIDER_AUDIENCE, and in seconds
// PROVIDER_ACCESS_TOKEN, PROVIDER_REFRESH_TOKEN, PROVIDER_DEVICE_CODE, PROVIDER_INTERVAL (the device flow's polling).
//
// The file, JSON: {"clients": [...] as the library takes them, "accounts": {name: {"password", "claims"}}, "client_claims":
// {client_id: claims}, "client_scopes": {client_id: scopes that it may request}, "jwks": private keys}. Claims go into the
// access tokens.

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const env = process.env;
const seconds = (name, otherwise) => Number(env[`PROVIDER_${name}`] ?? otherwise);
const configuration = JSON.parse(readFileSync(env.PROVIDER_FILE, 'utf8'));
const { clients, accounts, client_claims: clientClaims, client_scopes: clientScopes, jwks } = configuration;
const resource = 'urn:muster:api';
const interval = seconds('INTERVAL', 5);
const lastAsked = new Map();

// Our own pages: the library's load a font from another host.
const escaped = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
const page = (message, form) => `<!doctype html><html lang="en"><title>Muster</title><h1>${message}</h1>${form}</html>`;
const go = (id) => `<button form="op.device${id}Form">Continue</button>`;
const send = (ctx, message, form) => {
  ctx.type = 'html';
  ctx.body = page(message, form);
};
const loginForm = `<form method="post"><label>Name <input name="name" required autofocus></label>
<label>Password <input name="password" type="password" required></label><button>Log in</button></form>`;

const provider = new Provider(env.PROVIDER_ISSUER, {
  clients,
  clientDefaults: { id_token_signed_response_alg: jwks.keys[0].alg },
  jwks,
  cookies: { keys: [randomBytes(32).toString('hex')] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form, out, error) => send(
        ctx,
        error ? 'This code is not valid' : 'Enter the code',
        form + go('Input'),
      ),
      userCodeConfirmSource: (ctx, form, client, device, code) => send(
        ctx,
        `Does ${escaped(client.clientId)} show the code ${escaped(code)}?`,
        `${form}${go('Confirm')}<button form="op.deviceConfirmForm" name="abort" value="yes">No</button>`,
      ),
      successSource: (ctx) => send(ctx, 'You are logged in: return to the command', ''),
    },
    rpInitiatedLogout: { enabled: false },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, indicator, client) => ({
        scope: clientScopes[client.clientId] ?? '',
        audience: env.PROVIDER_AUDIENCE ?? 'muster',
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: jwks.keys[0].alg } },
      }),
    },
  },
  ttl: {
    AccessToken: seconds('ACCESS_TOKEN', 300),
    ClientCredentials: seconds('ACCESS_TOKEN', 300),
    DeviceCode: seconds('DEVICE_CODE', 600),
    Grant: seconds('REFRESH_TOKEN', 86400),
    Interaction: 600,
    RefreshToken: seconds('REFRESH_TOKEN', 86400),
    Session: 600,
  },
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  findAccount: (ctx, id) => (Object.hasOwn(accounts, id) ? { accountId: id, claims: () => ({ sub: id }) } : undefined),
  extraTokenClaims: (ctx, token) => (token.accountId ? accounts[token.accountId].claims : clientClaims[token.clientId]),
  // No consent page: the clients belong to this installation.
  async loadExistingGrant(ctx) {
    const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid offline_access');
    grant.addResourceScope(resource, '');
    await grant.save();
    return grant;
  },
  interactions: { url: (ctx, interaction) => `/login/${interaction.uid}` },
});

provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/device/auth' && ctx.status === 200) ctx.body = { ...ctx.body, interval };
});

// RFC 8628, 3.5: the library does not slow down a client that polls too often.
provider.use(async (ctx, next) => {
  await next();
  const code = ctx.oidc?.params?.device_code;
  if (ctx.path !== '/token' || !code) return;
  const now = performance.now();
  const tooSoon = now - (lastAsked.get(code) ?? -Infinity) < interval * 900;
  lastAsked.set(code, now);
  if (tooSoon && ctx.body?.error === 'authorization_pending') ctx.body = { error: 'slow_down' };
});

const matches = (given, expected) => {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
};

const reply = (response, status, message, form = loginForm) => {
  response.writeHead(status, {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  });
  response.end(page(message, form));
};

async function logIn(request, response) {
  await provider.interactionDetails(request, response); // throws without the cookie of this login
  if (request.method !== 'POST') return reply(response, 200, 'Log in');
  let body = '';
  for await (const chunk of request) {
    body += chunk;
    if (body.length > 4096) return reply(response, 413, 'Too long');
  }
  const form = new URLSearchParams(body);
  const [name, password] = [form.get('name') ?? '', form.get('password') ?? ''];
  if (!Object.hasOwn(accounts, name) || !matches(password, accounts[name].password)) {
    return reply(response, 401, 'Wrong name or password');
  }
  return provider.interactionFinished(request, response, { login: { accountId: name } });
}

const answer = provider.callback();
const server = createServer((request, response) => {
  if (!request.url.startsWith('/login/')) return answer(request, response);
  return logIn(request, response).catch(() => reply(response, 400, 'This login has ended: begin again', ''));
});
server.listen(seconds('PORT', 0), '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
