package cspedge.core

import java.io.ByteArrayOutputStream
import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.PublicKey
import java.security.Signature
import java.security.interfaces.ECPublicKey
import java.security.spec.X509EncodedKeySpec
import java.util.Base64

private const val MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
private const val PAYLOAD_TYPE = "application/vnd.in-toto+json"
private const val STATEMENT = "https://in-toto.io/Statement/v1"
private const val PREDICATE = "https://model_signing/signature/v1.0"
internal const val SIGNATURE_FILE: String = "model.sig"
private val IGNORABLE = setOf(SIGNATURE_FILE, ".git", ".gitattributes", ".github", ".gitignore")

/** An ECDSA P-256 public key that signatures are held against; it belongs to the app, never to a bundle. */
public class VerifyingKey private constructor(private val key: PublicKey, private val hint: String) {
    public companion object {
        /** From PEM text (SubjectPublicKeyInfo). IllegalArgumentException where it is no P-256 public key. */
        public fun fromPem(pem: String): VerifyingKey {
            val lines = pem.trim().lines().map { it.trim() }
            require(lines.first() == BEGIN && lines.last() == END) { "a PEM public key begins with '$BEGIN'" }
            val der = Base64.getDecoder().decode(lines.drop(1).dropLast(1).joinToString(""))
            val key = try {
                KeyFactory.getInstance("EC").generatePublic(X509EncodedKeySpec(der)) as ECPublicKey
            } catch (error: GeneralSecurityException) {
                throw IllegalArgumentException("the key is not an elliptic-curve public key", error)
            }
            require(key.params.order.toString(16) == P256_ORDER) { "the key is not on the curve P-256" }
            val body = Base64.getEncoder().encodeToString(key.encoded).chunked(64).joinToString("\n")
            return VerifyingKey(key, sha256("$BEGIN\n$body\n$END\n".encodeToByteArray()))
        }

        private const val BEGIN = "-----BEGIN PUBLIC KEY-----"
        private const val END = "-----END PUBLIC KEY-----"
        private const val P256_ORDER = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
    }

    /**
     * The digests, by path, that the signature in `text` (the bytes of model.sig) vouches for.
     *
     * OpenSSF Model Signing v1.0: a DSSE envelope in a Sigstore bundle. The payload is parsed only after the signature
     * over its exact bytes holds. Refusal: signature-invalid, signature-wrong-key, signature-mismatch.
     */
    public fun signedDigests(text: ByteArray): Map<String, String> {
        val bundle = parse(text, SIGNATURE_FILE)
        need(bundle.string("mediaType") == MEDIA_TYPE) { "its mediaType is not '$MEDIA_TYPE'" }
        val envelope = bundle.field("dsseEnvelope")
        need(envelope.string("payloadType") == PAYLOAD_TYPE) { "its payloadType is not '$PAYLOAD_TYPE'" }
        val signatures = (envelope.field("signatures") as? JsonArray)?.items
        need(signatures?.size == 1) { "it has not exactly one signature" }
        val signature = decode(signatures?.single()?.string("sig"))
        val payload = decode(envelope.string("payload"))
        checkHint(bundle.field("verificationMaterial").field("publicKey").field("hint"))
        if (!holds(signature, preAuthenticationEncoding(payload))) {
            throw Refusal(
                RefusalKind.SIGNATURE_MISMATCH,
                "$SIGNATURE_FILE: the signature does not hold over its payload",
            )
        }
        return statementDigests(parse(payload, "the payload of $SIGNATURE_FILE"))
    }

    private fun checkHint(hint: JsonValue?) {
        if (hint == null || hint == JsonNull || hint == JsonString("")) return
        need(hint is JsonString) { "its hint is not a text" }
        if (hint != JsonString(this.hint)) {
            throw Refusal(
                RefusalKind.SIGNATURE_WRONG_KEY,
                "$SIGNATURE_FILE was made with another key than the one given",
            )
        }
    }

    private fun holds(signature: ByteArray, message: ByteArray): Boolean = try {
        Signature.getInstance("SHA256withECDSA").run {
            initVerify(key)
            update(message)
            verify(signature)
        }
    } catch (error: GeneralSecurityException) {
        false // what is no DER signature does not hold either
    }
}

/** DSSE's PAE: what is signed, so that neither type nor length of the payload can be reinterpreted. */
private fun preAuthenticationEncoding(payload: ByteArray): ByteArray =
    "DSSEv1 ${PAYLOAD_TYPE.length} $PAYLOAD_TYPE ${payload.size} ".encodeToByteArray() + payload

private fun statementDigests(statement: JsonValue): Map<String, String> {
    need(statement.string("_type") == STATEMENT) { "its statement is not of type '$STATEMENT'" }
    need(statement.string("predicateType") == PREDICATE) { "its predicateType is not '$PREDICATE'" }
    val subjects = (statement.field("subject") as? JsonArray)?.items
    need(subjects?.size == 1) { "its statement has not exactly one subject" }
    val predicate = statement.field("predicate")
    checkSerialization(predicate.field("serialization"))
    val digests = LinkedHashMap<String, String>()
    val joined = ByteArrayOutputStream()
    val resources = (predicate.field("resources") as? JsonArray)?.items ?: invalid("it lists no resources")
    for (resource in resources) {
        val name = resource.string("name") ?: invalid("a resource has no name")
        val digest = resource.string("digest") ?: invalid("the resource '$name' has no digest")
        val bytes = hexBytes(digest)
        need(resource.string("algorithm") == "sha256" && bytes?.size == 32) { "the digest of '$name' is not SHA-256" }
        need(isSafePath(name)) { "it signs the path '$name', which may not stand in a bundle" }
        need(digests.put(name, digest) == null) { "it signs '$name' twice" }
        bytes?.let { joined.write(it, 0, it.size) }
    }
    val root = subjects?.single().field("digest").string("sha256")
    need(root == sha256(joined.toByteArray())) { "the digest of its subject is not that of its resources" }
    return digests
}

private fun checkSerialization(serialization: JsonValue?) {
    need(serialization.string("method") == "files") { "its method is not 'files'" }
    need(serialization.string("hash_type") == "sha256") { "its hash_type is not 'sha256'" }
    need(serialization.field("allow_symlinks") == JsonBool(false)) { "it allows symbolic links" }
    val ignored = serialization.field("ignore_paths")
    need(ignored == null || ignored is JsonArray) { "its ignore_paths are not a list" }
    for (path in (ignored as? JsonArray)?.items.orEmpty()) {
        need((path as? JsonString)?.value in IGNORABLE) { "it ignores a path that a bundle must have signed" }
    }
}

private fun parse(bytes: ByteArray, what: String): JsonValue = try {
    parseJson(bytes)
} catch (error: JsonException) {
    throw Refusal(RefusalKind.SIGNATURE_INVALID, "$what is not JSON: ${error.message}", error)
}

private fun decode(text: String?): ByteArray = try {
    Base64.getDecoder().decode(text ?: invalid("a field is missing"))
} catch (error: IllegalArgumentException) {
    throw Refusal(RefusalKind.SIGNATURE_INVALID, "$SIGNATURE_FILE: a field is not base64", error)
}

private fun JsonValue?.field(name: String): JsonValue? = (this as? JsonObject)?.fields?.get(name)

private fun JsonValue?.string(name: String): String? = (field(name) as? JsonString)?.value

private fun invalid(what: String): Nothing = throw Refusal(RefusalKind.SIGNATURE_INVALID, "$SIGNATURE_FILE: $what")

private inline fun need(condition: Boolean, what: () -> String) {
    if (!condition) invalid(what())
}
