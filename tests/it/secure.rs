//! Lines over TCP, and over TLS from where it is started, from either end; and certificates for them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::parts::PATIENCE;

/// A CA, with a folder for what it issues.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A server's certificate and key.
pub(crate) struct Identity {
    /// Its file, PEM.
    pub(crate) chain: PathBuf,
    /// The file of its key, PEM.
    pub(crate) key: PathBuf,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    pub(crate) fingerprint: String,
    certificate: CertificateDer<'static>,
    key_bytes: Vec<u8>,
}

impl Ca {
    /// Makes a CA, whose own certificate is `ca.pem` in the folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the CA of this test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = Ca { issuer, folder: folder.to_owned() };
        std::fs::write(ca.file(), ca.issuer.pem()).unwrap();
        ca
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate for a name or an address.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        self.identity(&key, made.der(), &made.pem())
    }

    /// Makes a certificate that signs itself; the CA has no part in it.
    pub(crate) fn self_signed(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        self.identity(&key, made.der(), &made.pem())
    }

    fn identity(&self, key: &KeyPair, certificate: &CertificateDer<'_>, pem: &str) -> Identity {
        let digest = Sha256::digest(certificate);
        let fingerprint: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = |end: &str| self.folder.join(format!("{fingerprint}.{end}"));
        let (chain, key_file) = (file("pem"), file("key"));
        std::fs::write(&chain, pem).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        set_private(&key_file);
        let certificate = certificate.clone().into_owned();
        Identity { chain, key: key_file, fingerprint, certificate, key_bytes: key.serialize_der() }
    }

    /// What a client needs that trusts this CA alone.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl Identity {
    /// What a server needs to show it.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key_bytes.clone()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        Arc::new(config)
    }

    /// The line of the configuration that has the gateway show it.
    pub(crate) fn as_setting(&self) -> String {
        let (chain, key) = (self.chain.to_str().unwrap(), self.key.to_str().unwrap());
        format!("tls.certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]\n")
    }
}

/// Makes a file readable for its owner alone.
pub(crate) fn set_private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

enum Wire {
    Clear(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// One end of a connection, read by lines.
pub(crate) struct Lines {
    wire: Wire,
    /// What has come and is not read.
    ahead: Vec<u8>,
}

impl Lines {
    /// Takes an end that is in clear.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Lines { wire: Wire::Clear(stream), ahead: Vec::new() })
    }

    /// Connects, and reads nothing.
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Lines::new(TcpStream::connect(to).unwrap()).unwrap()
    }

    /// Whether TLS was started.
    pub(crate) fn is_secure(&self) -> bool {
        !matches!(self.wire, Wire::Clear(_))
    }

    /// Starts TLS as the client of a server of this name.
    pub(crate) fn start_tls(self, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let Wire::Clear(stream) = self.wire else { panic!("TLS was started before") };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Lines { wire: Wire::Client(Box::new(stream)), ahead: Vec::new() })
    }

    /// Starts TLS as a server.
    pub(crate) fn answer_tls(self, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let Wire::Clear(stream) = self.wire else { panic!("TLS was started before") };
        let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Lines { wire: Wire::Server(Box::new(stream)), ahead: Vec::new() })
    }

    /// Sends text as it is.
    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        let wire: &mut dyn Write = match &mut self.wire {
            Wire::Clear(stream) => stream,
            Wire::Client(stream) => stream,
            Wire::Server(stream) => stream,
        };
        wire.write_all(text.as_bytes())?;
        wire.flush()
    }

    /// Reads a line with its end.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            let mut buffer = [0u8; 4096];
            let read = match &mut self.wire {
                Wire::Clear(stream) => stream.read(&mut buffer),
                Wire::Client(stream) => stream.read(&mut buffer),
                Wire::Server(stream) => stream.read(&mut buffer),
            }?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.ahead.extend_from_slice(&buffer[..read]);
        }
    }

    /// Reads one reply, all of its lines.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let line = self.line().unwrap_or_else(|error| panic!("{error} after {reply:?}"));
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply.trim_end().to_owned();
            }
        }
    }

    /// Sends a command and reads its reply.
    pub(crate) fn command(&mut self, line: &str) -> String {
        self.send(&format!("{line}\r\n")).unwrap();
        self.reply()
    }

    /// The same, and the reply must begin like this; gives it.
    pub(crate) fn expect(&mut self, line: &str, beginning: &str) -> String {
        let reply = self.command(line);
        assert!(reply.starts_with(beginning), "{line}: {reply}, expected {beginning}");
        reply
    }
}
