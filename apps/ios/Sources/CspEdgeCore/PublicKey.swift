import Foundation

#if canImport(CryptoKit)
    import CryptoKit

    /// An ECDSA public key on P-256.
    struct PublicKey: Sendable {
        private let key: P256.Signing.PublicKey

        /// From SubjectPublicKeyInfo; nil where it is no P-256 key.
        init?(der: Data) {
            guard let key = try? P256.Signing.PublicKey(derRepresentation: der) else { return nil }
            self.key = key
        }

        var der: Data { key.derRepresentation }

        /// Whether the DER signature holds over the SHA-256 of the message.
        func holds(_ signature: Data, over message: Data) -> Bool {
            guard let parsed = try? P256.Signing.ECDSASignature(derRepresentation: signature) else { return false }
            return key.isValidSignature(parsed, for: message)
        }
    }
#else
    import CLibcrypto

    /// An ECDSA public key on P-256.
    struct PublicKey: Sendable {
        let der: Data

        /// From SubjectPublicKeyInfo; nil where it is no P-256 key.
        init?(der: Data) {
            guard let key = Self.parse(der) else { return nil }
            defer { EVP_PKEY_free(key) }
            var name = [CChar](repeating: 0, count: 64)
            var length = 0
            guard EVP_PKEY_get_group_name(key, &name, name.count, &length) == 1,
                String(decoding: name.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self) == "prime256v1"
            else { return nil }
            var encoded: UnsafeMutablePointer<UInt8>?
            let count = i2d_PUBKEY(key, &encoded)
            guard count > 0, let encoded else { return nil }
            self.der = Data(bytes: encoded, count: Int(count))
            CRYPTO_free(encoded, nil, 0)
        }

        /// Whether the DER signature holds over the SHA-256 of the message.
        func holds(_ signature: Data, over message: Data) -> Bool {
            guard let key = Self.parse(der) else { return false }
            defer { EVP_PKEY_free(key) }
            let context = EVP_MD_CTX_new()
            defer { EVP_MD_CTX_free(context) }
            guard EVP_DigestVerifyInit(context, nil, EVP_sha256(), nil, key) == 1 else { return false }
            let signed = [UInt8](signature)
            let text = [UInt8](message)
            return EVP_DigestVerify(context, signed, signed.count, text, text.count) == 1
        }

        private static func parse(_ der: Data) -> OpaquePointer? {
            let bytes = [UInt8](der)
            return bytes.withUnsafeBufferPointer { buffer in
                var at = buffer.baseAddress
                return d2i_PUBKEY(nil, &at, buffer.count)
            }
        }
    }
#endif
