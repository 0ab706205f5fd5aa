//! The keys of certificates.

use super::Key;
use crate::config::record::{self, Record};
use crate::config::value;
use crate::ingress::tls::CertificateFiles;

pub(super) static TLS: [Key; 3] = [
    Key {
        name: "tls.certificates",
        default: "[]",
        meaning: "Our certificates, chosen by the name that the client asks for; the first where it asks for none:\n\
                  [{ chain = \"/etc/lazaret/mail.pem\", key = \"/etc/lazaret/mail.key\" }]",
        set: |c, v| {
            value::list(v, |item| CERTIFICATE.read(value::table(item)?)).map(|x| c.tls.certificates = x)
        },
    },
    Key {
        name: "tls.client_ca",
        default: "\"\"",
        meaning: "A file of CA certificates (PEM) that certificates of clients are verified by; empty asks for none.",
        set: |c, v| value::path(v).map(|x| c.tls.client_ca = x),
    },
    Key {
        name: "tls.roots",
        default: "\"\"",
        meaning: "A file of CA certificates (PEM) that next hops are verified by; empty for the system's.",
        set: |c, v| value::path(v).map(|x| c.tls.roots = x),
    },
];

/// A certificate and its key.
pub(super) static CERTIFICATE: Record<CertificateFiles> = Record {
    required: &["chain", "key"],
    blank: || CertificateFiles { chain: "".into(), key: "".into() },
    keys: &[
        record::Key {
            name: "chain",
            default: "\"/etc/lazaret/mail.pem\"",
            meaning: "The certificate and those that lead to its root, PEM.",
            set: |c, v| value::text(v).map(|x| c.chain = x.into()),
        },
        record::Key {
            name: "key",
            default: "\"/etc/lazaret/mail.key\"",
            meaning: "The private key, PEM; for the gateway's user alone to read.",
            set: |c, v| value::text(v).map(|x| c.key = x.into()),
        },
    ],
};
